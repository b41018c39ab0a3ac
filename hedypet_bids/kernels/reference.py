"""A paper that a method comes from, as text and as BibTeX."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A paper or report; ``authors`` as ``Family, Given``, several joined by `` and ``."""

    authors: str
    title: str
    year: int
    where: str
    volume: str = ""
    pages: str = ""
    doi: str = ""
    kind: str = "article"

    def text(self) -> str:
        """One line for a list of references."""
        people = [_initials(person) for person in self.authors.split(" and ")]
        place = f"{self.where} {self.year}"
        if self.volume:
            place += f";{self.volume}" + (f":{self.pages}" if self.pages else "")
        link = f" https://doi.org/{self.doi}" if self.doi else ""
        return f"{', '.join(people)}. {self.title}. {place}.{link}"

    def bibtex(self, key: str) -> str:
        """One BibTeX entry."""
        place = "journal" if self.kind == "article" else "publisher"
        fields = {
            "author": self.authors,
            "title": "{" + self.title + "}",
            place: self.where,
            "year": str(self.year),
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "doi": self.doi,
        }
        lines = "".join(f"  {name} = {{{_tex(value)}}},\n" for name, value in fields.items() if value)
        return f"@{self.kind}{{{key},\n{lines}}}\n"


def _initials(person: str) -> str:
    if person == "others":
        return "et al"
    family, _, given = person.partition(", ")
    return f"{family} {''.join(name[0] for name in given.replace('-', ' ').split())}".strip()


def _tex(text: str) -> str:
    return text.replace("&", r"\&").replace("%", r"\%")
