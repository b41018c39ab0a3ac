"""What both ``hedypet`` and ``hedypet-worker`` are told about a Dask scheduler."""

from __future__ import annotations

from argparse import ArgumentTypeError

from hedypet_bids.run.cluster import HOW_TO_ENCRYPT

TLS_OPTIONS = {
    "--tls-ca-file": "certificate of the authority that signed those of the Dask scheduler and its workers "
    "(default of all three: Dask's settings)",
    "--tls-cert": "certificate that this program shows them",
    "--tls-key": "private key of that certificate",
}
"""Options and their help; ``dask scheduler`` has the same."""


def scheduler_address(text: str) -> str:
    """The address of a scheduler that takes encrypted connections only."""
    if not text.startswith("tls://"):
        raise ArgumentTypeError(
            f"expected an address such as tls://node1:8786, found {text!r}. {HOW_TO_ENCRYPT}"
        )
    return text
