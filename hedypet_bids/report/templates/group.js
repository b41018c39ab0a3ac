'use strict';
(() => {
const data = JSON.parse(document.getElementById('data').textContent);
const people = data.participants;
const kind = new Set(people.subject).size < people.label.length ? 'scans' : 'participants';
const SVG = 'http://www.w3.org/2000/svg';
const byId = id => document.getElementById(id);
const tip = byId('tip');

// ---- numbers ----

/** Values packed as base64 of little-endian float32; what is not finite is missing. */
function unpack(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Array.from({length: bytes.length / 4}, (_, i) => view.getFloat32(4 * i, true));
}

function shown(value) {
  if (value === 0) return '0';
  return Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(4)));
}

const withUnits = (value, units) => shown(value) + (units ? ' ' + units : '');

/** A quantile of sorted values, with linear interpolation as in the table of statistics. */
function quantile(sorted, q) {
  const at = q * (sorted.length - 1), low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

const ascending = values => values.slice().sort((a, b) => a - b);

/** The values of some scans ({p, value}), of each participant the first alone. */
function oncePerPerson(members) {
  const first = new Map();
  for (const member of members.slice().sort((a, b) => a.p - b.p)) {
    if (!first.has(people.subject[member.p])) first.set(people.subject[member.p], member.value);
  }
  return ascending(Array.from(first.values()));
}

/** Which scans are too many robust SDs from the median of the participants with their tracer. */
function farOut(values) {
  const far = values.map(() => false);
  for (const tracer of new Set(people.tracer)) {
    const members = values.map((value, p) => ({p, value}))
      .filter(m => people.tracer[m.p] === tracer && Number.isFinite(m.value));
    const once = oncePerPerson(members);
    if (once.length < data.outliers.least) continue;
    const median = quantile(once, 0.5);
    const mad = data.outliers.madToSd * quantile(ascending(once.map(v => Math.abs(v - median))), 0.5);
    for (const {p, value} of members) far[p] = mad > 0 && Math.abs(value - median) / mad > data.outliers.z;
  }
  return far;
}

/** Round numbers that divide a range into a few parts. */
function ticks(low, high, most) {
  const least = (high - low) / most, power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map(s => s * power).find(s => s >= least * (1 - 1e-9));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

// ---- drawing ----

function add(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

/** Offsets from the middle of a row so that points beside each other do not hide each other. */
function offsets(xs, radius, room) {
  const filled = new Map(), places = xs.map(x => {
    const slot = Math.round(x / (1.6 * radius)), n = filled.get(slot) || 0;
    filled.set(slot, n + 1);
    return (n % 2 ? 1 : -1) * Math.ceil(n / 2);
  });
  const farthest = Math.max(1, ...places.map(Math.abs));
  const step = Math.min(2 * radius, room / farthest);
  return places.map(place => place * step);
}

/** The rows of a plot: one for everyone, or one a group that has values. */
function rowsOf(values) {
  const key = (byId('grouping') || {}).value, groups = new Map();
  values.forEach((value, p) => {
    if (!Number.isFinite(value)) return;
    const group = key ? people[key][p] || 'n/a' : '';
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push({p, value});
  });
  const order = Array.from(groups.keys()).sort();
  return order.map(group => ({group, members: groups.get(group).sort((a, b) => a.value - b.value)}));
}

/** Draw a plot (title, units, values, far or not, normal range) as SVG into its figure. */
function draw(figure, plot) {
  const width = Math.max(260, figure.clientWidth), left = 12, right = 16, head = 4;
  const rows = rowsOf(plot.values), all = rows.flatMap(row => row.members.map(m => m.value));
  const svg = document.createElementNS(SVG, 'svg');
  if (!all.length) return;
  const radius = all.length > 1000 ? 2.2 : all.length > 200 ? 3 : 4.5;
  const label = rows.length > 1 || rows[0].group ? 16 : 0, strip = all.length > 500 ? 120 : all.length > 150 ? 88 : 64;
  const rowHeight = label + strip + 22, bottom = head + rows.length * rowHeight, height = bottom + 38;
  let low = Math.min(...all), high = Math.max(...all);
  if (plot.range) { low = Math.min(low, plot.range[0]); high = Math.max(high, plot.range[1]); }
  else {
    // A narrow spread must look narrow: the axis spans at least a fifth of the median.
    const short = Math.max(0, Math.abs(quantile(ascending(all), 0.5)) / 5 - (high - low)) / 2;
    low -= short; high += short;
  }
  const pad = (high - low || Math.abs(high) || 1) * 0.04;
  low -= pad; high += pad;
  const x = value => left + (value - low) / (high - low) * (width - left - right);
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('role', 'group');
  svg.classList.toggle('dense', all.length > 500);
  svg.setAttribute('aria-label', `${plot.title}: ${all.length} ${kind}, from `
    + `${withUnits(Math.min(...all), plot.units)} to ${withUnits(Math.max(...all), plot.units)}, median `
    + withUnits(quantile(oncePerPerson(rows.flatMap(row => row.members)), 0.5), plot.units));
  if (plot.range) drawRange(svg, plot.range.map(x), bottom, head);
  for (const tick of ticks(low, high, width < 420 ? 4 : 6)) {
    add(svg, 'path', {class: 'grid', d: `M${x(tick)} ${head} V${bottom}`});
    add(svg, 'path', {class: 'tick', d: `M${x(tick)} ${bottom} v4`});
    add(svg, 'text', {x: x(tick), y: bottom + 17, 'text-anchor': 'middle'}, shown(tick));
  }
  add(svg, 'path', {class: 'axis', d: `M${left} ${bottom} H${width - right}`});
  add(svg, 'text', {class: 'units', x: (left + width - right) / 2, y: bottom + 33, 'text-anchor': 'middle'},
    plot.axis);
  rows.forEach((row, i) => {
    const top = head + i * rowHeight;
    if (label) add(svg, 'text', {x: left, y: top + 12}, `${row.group} (n ${row.members.length})`);
    drawBox(svg, oncePerPerson(row.members), x, top + label + strip + 10);
    drawPoints(svg, plot, row, x, top + label + strip / 2, radius, strip / 2 - radius - 2);
  });
  svg.querySelector('a').setAttribute('tabindex', '0');
  figure.append(svg);
}

function drawRange(svg, [from, to], bottom, head) {
  add(svg, 'rect', {class: 'normal', x: from, y: head, width: Math.max(1, to - from), height: bottom - head});
  for (const limit of [from, to]) add(svg, 'path', {class: 'limit', d: `M${limit} ${head} V${bottom}`});
}

/** Median, quartiles and 5 % and 95 % of sorted values; of fewer than five the median alone. */
function drawBox(svg, sorted, x, middle) {
  const at = q => x(quantile(sorted, q));
  if (sorted.length >= 5) {
    const ends = [at(0.05), at(0.95)].map(end => `M${end} ${middle - 4} v8`).join(' ');
    add(svg, 'path', {class: 'whisker', d: `M${at(0.05)} ${middle} H${at(0.95)} ${ends}`});
    add(svg, 'rect', {class: 'box', x: at(0.25), y: middle - 6, width: Math.max(1, at(0.75) - at(0.25)), height: 12});
  }
  add(svg, 'path', {class: 'median', d: `M${at(0.5)} ${middle - 7} v14`});
}

function drawPoints(svg, plot, row, x, middle, radius, room) {
  const xs = row.members.map(m => x(m.value)), ys = offsets(xs, radius, room);
  const chosen = (byId('marked') || {}).value;
  const drawn = row.members.map((member, i) => {
    const {p, value} = member, cx = xs[i].toFixed(1), cy = middle + ys[i];
    const far = plot.far[p], text = `${people.label[p]}: ${withUnits(value, plot.units)}`;
    const link = add(svg, 'a', {'data-p': p, tabindex: -1, 'aria-label': text + (far ? ', ' + plot.farText : '')});
    if (people.page[p]) link.setAttribute('href', encodeURIComponent(people.page[p]));
    else link.setAttribute('role', 'img');
    const s = radius + 2, mark = `M${cx} ${cy - s} l${s} ${s} l${-s} ${s} l${-s} ${-s} Z`;
    if (far) add(link, 'path', {class: 'point far', d: mark});
    else add(link, 'circle', {class: 'point', cx, cy: cy.toFixed(1), r: radius});
    link.told = {p, text: withUnits(value, plot.units), title: plot.title, far: far ? plot.farText : ''};
    if (people.label[p] === chosen) link.classList.add('chosen');
    return link;
  });
  // What comes last lies on top: the marked participant must not be hidden.
  svg.append(...drawn.filter(link => link.classList.contains('chosen')));
}

// ---- plots that are drawn when they come near the window ----

const waiting = new Map();
const nearby = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) {
    if (isIntersecting) drawNow(target);
    else if (people.label.length > 200 && !target.contains(document.activeElement)) empty(target);
  }
}, {rootMargin: '500px 0px'});

function drawNow(figure) {
  if (!figure.querySelector('svg')) draw(figure, waiting.get(figure));
  figure.style.minHeight = '';
}

function empty(figure) {
  const svg = figure.querySelector('svg');
  if (!svg) return;
  figure.style.minHeight = figure.offsetHeight + 'px';
  svg.remove();
}

function place(container, plots) {
  for (const figure of container.children) { nearby.unobserve(figure); waiting.delete(figure); }
  container.classList.toggle('single', plots.length === 1);
  container.replaceChildren(...plots.map(plot => {
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption'), note = document.createElement('small');
    const n = plot.values.filter(Number.isFinite).length;
    caption.append(plot.title);
    note.textContent = n
      ? `${n} of ${people.label.length} ${kind} have a value${plot.note ? '; ' + plot.note : ''}`
      : 'No participant has a value.';
    caption.append(note);
    figure.append(caption);
    figure.dataset.name = plot.name;
    if (n) figure.style.minHeight = '150px';
    waiting.set(figure, plot);
    return figure;
  }));
  for (const figure of container.children) nearby.observe(figure);
}

// ---- which plots ----

function valuesOf(region, quantity) {
  if (!region[quantity.column]) return people.label.map(() => NaN);
  const constants = people.constants[quantity.constant];
  return unpack(region[quantity.column]).map((v, p) => constants ? v / (constants[p] ?? NaN) : v);
}

function regionPlot(region, quantity) {
  const values = valuesOf(region, quantity);
  const task = data.tasks[region.task], eroded = region.erosion ? `, eroded ${region.erosion}` : '';
  return {
    name: region.name, values, units: quantity.units,
    title: `${quantity.name} of ${region.name}${eroded}`, note: task,
    axis: `${quantity.name} [${quantity.units || 'no unit'}]`,
    far: farOut(values),
    farText: `more than ${data.outliers.z} robust SDs from the median`,
  };
}

function qualityPlot(measure) {
  const values = unpack(measure.values);
  const range = [measure.low, measure.high];
  return {
    name: measure.name, values, units: measure.units, title: measure.name,
    note: `${measure.meaning}; normal ${shown(measure.low)} to ${withUnits(measure.high, measure.units)}`,
    axis: measure.units ? `[${measure.units}]` : '[no unit]',
    far: values.map(v => v < measure.low || v > measure.high), farText: 'outside the normal range', range,
  };
}

const regionKey = region => `${region.task}/${region.name}`;

function chosenRegions() {
  const erosion = Number(byId('erosion').value), wanted = byId('region').value;
  const there = data.regions.filter(region => region.erosion === erosion);
  if (wanted === 'main') return there.filter(r => r.main !== null).sort((a, b) => a.main - b.main);
  if (wanted.startsWith('all/')) return there.filter(r => r.task === wanted.slice(4));
  return there.filter(r => regionKey(r) === wanted);
}

function showRegions() {
  hideTip();
  const quantity = data.quantities[byId('quantity').value], container = byId('region-plots');
  const plots = chosenRegions().map(region => regionPlot(region, quantity));
  place(container, plots);
  if (!plots.length) container.textContent = 'This region is not on this page with this erosion.';
}

function showQuality() {
  if (byId('quality-plots')) place(byId('quality-plots'), data.quality.map(qualityPlot));
}

// ---- controls ----

function option(parent, value, text, disabled = false) {
  const element = document.createElement('option');
  Object.assign(element, {value, textContent: text, disabled});
  parent.append(element);
}

function optionGroup(parent, label) {
  const group = document.createElement('optgroup');
  group.label = label;
  parent.append(group);
  return group;
}

const hasValues = quantity => {
  const constants = people.constants[quantity.constant];
  return data.regions.some(r => r[quantity.column]) && (!constants || constants.some(c => c !== null));
};

function fillControls() {
  data.quantities.forEach((quantity, i) => {
    const there = hasValues(quantity);
    option(byId('quantity'), i, `${quantity.name} [${quantity.units}]${there ? '' : ' (no values)'}`, !there);
  });
  byId('quantity').value = Math.max(0, data.quantities.findIndex(hasValues));
  const erosions = Array.from(new Set(data.regions.map(r => r.erosion))).sort();
  for (const n of erosions) option(byId('erosion'), n, n ? `eroded by ${n} voxel${n > 1 ? 's' : ''}` : 'not eroded');
  const first = data.regions.filter(r => r.erosion === erosions[0]);
  const tasks = Array.from(new Set(first.map(r => r.task)));
  const several = optionGroup(byId('region'), 'Several');
  if (first.some(r => r.main !== null)) option(several, 'main', 'main organs');
  for (const task of tasks) {
    option(several, `all/${task}`, `all of ${data.tasks[task]} (${first.filter(r => r.task === task).length})`);
  }
  for (const task of tasks) {
    const group = optionGroup(byId('region'), data.tasks[task]);
    for (const r of first.filter(r => r.task === task)) option(group, regionKey(r), r.name);
  }
  const kinds = {'': 'everyone', sex: 'sex', ageGroup: 'age group', split: 'split'};
  for (const key of ['session', 'tracer']) if (new Set(people[key]).size > 1) kinds[key] = key;
  for (const [key, text] of Object.entries(kinds)) {
    if (!key || people[key].some(Boolean)) option(byId('grouping'), key, text);
  }
  for (const label of people.label) option(byId('marked'), label, label);
}

// ---- hover, focus, keys ----

function say(link) {
  const {p, text, title, far} = link.told;
  const facts = [people.sex[p], people.age[p] === null ? '' : `${shown(people.age[p])} years`].filter(Boolean);
  const line = (tag, content) => Object.assign(document.createElement(tag), {textContent: content});
  tip.replaceChildren(line('b', people.label[p]), line('span', `${title}: ${text}`));
  if (facts.length) tip.append(line('span', facts.join(', ')));
  if (far) tip.append(line('span', far));
  if (!people.page[p]) tip.append(line('span', 'no page'));
  tip.hidden = false;
  const box = link.getBoundingClientRect(), width = document.documentElement.clientWidth;
  const x = Math.min(Math.max(8, box.x + box.width / 2 - tip.offsetWidth / 2), width - tip.offsetWidth - 8);
  const above = box.y - tip.offsetHeight - 8;
  tip.style.left = `${x + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
  for (const other of document.querySelectorAll('a.active')) other.classList.remove('active');
  for (const same of document.querySelectorAll(`a[data-p="${p}"]`)) same.classList.add('active');
}

function hideTip() {
  tip.hidden = true;
  for (const other of document.querySelectorAll('a.active')) other.classList.remove('active');
}

const pointAt = event => event.target.closest && event.target.closest('a[data-p]');
let told = null, touched = false;

document.addEventListener('pointerover', event => pointAt(event) && say(pointAt(event)));
document.addEventListener('pointerout', event => {
  if (!pointAt(event)) return;
  const focused = document.activeElement.closest('a[data-p]');
  if (focused && focused.matches(':focus-visible')) say(focused); else hideTip();
});
document.addEventListener('focusin', event => pointAt(event) && say(pointAt(event)));
document.addEventListener('focusout', event => pointAt(event) && hideTip());
document.addEventListener('pointerdown', event => { touched = event.pointerType === 'touch'; });
document.addEventListener('click', event => {
  const link = pointAt(event);
  // A finger cannot hover: its first touch says what the point is, the second opens the page.
  if (link && touched && told !== link) { event.preventDefault(); say(link); }
  told = link;
});
document.addEventListener('keydown', event => {
  if (event.key === 'Escape') hideTip();
  const link = pointAt(event);
  if (!link) return;
  const links = Array.from(link.ownerSVGElement.querySelectorAll('a[data-p]'));
  const at = links.indexOf(link);
  const steps = {ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: links.length - 1};
  const next = links[steps[event.key]];
  if (!(event.key in steps)) return;
  event.preventDefault();
  if (!next) return;
  link.setAttribute('tabindex', '-1');
  next.setAttribute('tabindex', '0');
  next.focus();
});

// ---- start ----

function markParticipant() {
  const p = people.label.indexOf(byId('marked').value);
  for (const link of document.querySelectorAll('a[data-p]')) {
    link.classList.toggle('chosen', Number(link.dataset.p) === p);
    if (Number(link.dataset.p) === p) link.parentNode.append(link);
  }
}

let width = 0, later = 0;
function redrawForWidth() {
  if (document.documentElement.clientWidth === width) return;
  width = document.documentElement.clientWidth;
  for (const figure of waiting.keys()) {
    if (figure.querySelector('svg')) { figure.querySelector('svg').remove(); draw(figure, waiting.get(figure)); }
  }
}

if (byId('quantity')) {
  fillControls();
  for (const id of ['quantity', 'region', 'erosion']) byId(id).addEventListener('change', showRegions);
  byId('grouping').addEventListener('change', () => { showRegions(); showQuality(); });
  byId('marked').addEventListener('change', markParticipant);
  showRegions();
}
showQuality();
width = document.documentElement.clientWidth;
addEventListener('resize', () => { clearTimeout(later); later = setTimeout(redrawForWidth, 150); });
addEventListener('beforeprint', () => { for (const figure of waiting.keys()) drawNow(figure); });
})();
