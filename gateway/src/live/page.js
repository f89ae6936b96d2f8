// The live page: samples come in over one stream, are folded into a small model, and are drawn once
// a frame. Nothing that a server says is ever parsed as markup.

const CONTROL = 4294967295;
const WINDOW_MS = 60_000;
const SAMPLES_MAX = 60;
const NEWS_MAX = 100;
const RETRY_MS = [500, 1000, 2000, 5000];

const byId = (id) => document.getElementById(id);
const text = (node, value) => { if (node.textContent !== value) node.textContent = value; };
const make = (kind, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(kind), properties);
  node.append(...children);
  return node;
};
const seconds = (ms) => (ms < 1000 ? `${Math.round(ms / 10) * 10} ms` : `${(ms / 1000).toFixed(1)} s`);
const whole = new Intl.NumberFormat('en');

// ---- the model ----

const model = { shards: new Map(), nodes: new Map(), gateways: new Map(), rates: [], dirty: false };

/** Who leads a group: of the nodes that answer, the one of the highest term that says it does itself. */
function leaderOf(group, nodes) {
  let found = { node: 0, term: 0, last: 0 };
  for (const { node, stands } of nodes) {
    const own = stands?.byGroup.get(group);
    if (own && own.leader === node && !own.stopped && own.term >= found.term) {
      found = { node, term: own.term, last: own.last };
    }
  }
  return found;
}

function fold(sample, now) {
  const groups = new Set(model.shards.keys());
  for (const { stands } of sample.nodes) {
    if (!stands) continue;
    stands.byGroup = new Map();
    for (const [number, term, leader, last, applied, stopped] of stands.groups) {
      stands.byGroup.set(number, { term, leader, last, applied, stopped });
      groups.add(number);
    }
  }
  for (const number of groups) foldShard(number, sample.nodes, now);
  for (const { node, stands } of sample.nodes) {
    const before = model.nodes.get(node);
    if (before !== undefined && before.up !== Boolean(stands)) {
      tell(now, `node ${node} ${stands ? 'answers again' : 'does not answer'}`);
    }
    model.nodes.set(node, { up: Boolean(stands), alarms: stands && new Map(stands.alarms) });
  }
  if (sample.gateways) foldGateways(sample.gateways, now);
  model.dirty = true;
}

function foldShard(number, nodes, now) {
  const shard = model.shards.get(number) ?? { spans: [], gapFrom: 0, leader: 0, term: 0 };
  const leader = leaderOf(number, nodes);
  if (leader.node) {
    const changed = shard.leader && shard.leader !== leader.node;
    const gone = !nodes.find(({ node }) => node === shard.leader)?.stands;
    // Between two samples a leader may go and another one come.
    if (changed && gone) shard.gapFrom ||= shard.ledAt;
    if (shard.gapFrom) {
      shard.spans.push({ from: shard.gapFrom, to: now });
      tell(now, `${name(number)}: node ${leader.node} leads in term ${leader.term}, after ${seconds(now - shard.gapFrom)} without a leader, at most`);
      shard.gapFrom = 0;
    } else if (changed) {
      tell(now, `${name(number)}: node ${leader.node} leads in term ${leader.term}, and node ${shard.leader} no longer`);
    }
    shard.leader = leader.node;
    shard.term = leader.term;
    shard.last = leader.last;
    shard.ledAt = now;
  } else {
    shard.gapFrom ||= shard.ledAt ?? now;
  }
  shard.spans = shard.spans.filter((span) => span.to > now - WINDOW_MS);
  shard.since ??= now;
  shard.cells = nodes.map(({ node, stands }) => cell(node, stands?.byGroup.get(number), leader));
  model.shards.set(number, shard);
}

function cell(node, own, leader) {
  if (!own) return ['gone', 'no answer'];
  if (own.stopped) return ['gone', `stopped: ${own.stopped}`];
  if (leader.node === node) return ['leads', 'leads'];
  const lag = Math.max(0, leader.last - own.applied);
  // What is on its way to every follower under load is no lag worth a colour.
  return lag > 1000 ? ['behind', `${whole.format(lag)} behind`] : ['follows', lag ? `−${whole.format(lag)}` : 'follows'];
}

/** What a gateway's metrics say; counts since it was started. */
function figuresOf(lines, at) {
  const values = new Map();
  for (const [metric, labels, value] of lines) {
    const series = values.get(metric) ?? new Map();
    series.set(labels, value);
    values.set(metric, series);
  }
  const sum = (metric, wanted = () => true) => {
    let total = 0;
    for (const [labels, value] of values.get(metric) ?? []) if (wanted(labels)) total += value;
    return total;
  };
  const ok = (labels) => labels.includes('"OK"');
  const taken = (labels) => labels.includes('"accepted"');
  return {
    at,
    connections: sum('gateway_connections'),
    watched: sum('gateway_mailboxes_watched'),
    acked: sum('gateway_sends_total', ok),
    refused: sum('gateway_sends_total', (labels) => !ok(labels)),
    givenBack: sum('gateway_sends_given_back_total'),
    delivered: sum('gateway_delivered_entries_total'),
    notices: sum('gateway_notices_total'),
    pushes: sum('gateway_pushes_total', taken),
    pushesFailed: sum('gateway_pushes_total', (labels) => !taken(labels)),
    resets: sum('gateway_resets_total'),
    send: values.get('gateway_send_seconds_bucket'),
    delivery: values.get('gateway_delivery_seconds_bucket'),
  };
}

/** What happened at a gateway between two looks; nothing, if it was started again and counts from 0. */
function between(before, next) {
  const over = (next.at - before.at) / 1000;
  if (over <= 0 || next.acked < before.acked || next.delivered < before.delivered) return null;
  return {
    acked: (next.acked - before.acked) / over,
    delivered: (next.delivered - before.delivered) / over,
    send: grown(before.send, next.send),
    delivery: grown(before.delivery, next.delivery),
  };
}

function foldGateways(gateways, now) {
  const first = model.gateways.size === 0;
  const rates = [];
  for (const { at, tells } of gateways) {
    const known = model.gateways.get(at);
    const figures = tells && figuresOf(tells, now);
    const rate = figures && known?.figures && between(known.figures, figures);
    if (rate) rates.push(rate);
    if (known && known.up !== Boolean(tells)) tell(now, `gateway ${at} ${tells ? 'answers again' : 'does not answer'}`);
    if (!known && !first) tell(now, `gateway ${at} is there`);
    model.gateways.set(at, { up: Boolean(tells), figures: figures ?? known?.figures, rate });
  }
  // It is the nodes that know of the others: where none answers, nobody has gone.
  if ([...model.nodes.values()].some(({ up }) => up)) {
    const there = new Set(gateways.map(({ at }) => at));
    for (const at of [...model.gateways.keys()].filter((it) => !there.has(it))) {
      model.gateways.delete(at);
      tell(now, `gateway ${at} has gone`);
    }
  }
  if (rates.length === 0) return;
  const sum = (of) => rates.reduce((total, rate) => total + of(rate), 0);
  model.rates.push({
    acked: sum((rate) => rate.acked),
    delivered: sum((rate) => rate.delivered),
    send: quantile(rates.map((rate) => rate.send), 0.99),
    delivery: quantile(rates.map((rate) => rate.delivery), 0.99),
  });
  model.rates = model.rates.slice(-SAMPLES_MAX);
}

/** By how much each bucket of a histogram has grown: bound to count. */
function grown(before, after) {
  const bounds = new Map();
  for (const [labels, value] of after ?? []) {
    const bound = /le="([^"]+)"/.exec(labels)?.[1];
    if (!bound) continue;
    const key = bound === '+Inf' ? Infinity : Number(bound);
    bounds.set(key, (bounds.get(key) ?? 0) + value - (before?.get(labels) ?? 0));
  }
  return bounds;
}

/** The upper bound, in ms, of the bucket in which a quantile of all these histograms lies. */
function quantile(histograms, q) {
  const bounds = new Map();
  for (const histogram of histograms) {
    for (const [bound, count] of histogram) bounds.set(bound, (bounds.get(bound) ?? 0) + count);
  }
  const sorted = [...bounds].sort((one, other) => one[0] - other[0]);
  const total = sorted.at(-1)?.[1] ?? 0;
  return total > 0 ? sorted.find(([, count]) => count >= total * q)[0] * 1000 : null;
}

// ---- the ledger: what must be 0 ----

const MUST_BE_ZERO = [
  ['wrong_shard', 'commands for a mailbox of another shard'],
  ['cursor_above_head', 'cursors above the head of their mailbox'],
  ['relay_above_head', 'shards that got more from another one than it has sent'],
  ['relay_halted', 'streams between shards that halted'],
];

/** Row by row, what each node counts; null where that is not known. */
function ledger() {
  const nodes = [...model.nodes.values()];
  const kinds = new Map(MUST_BE_ZERO);
  // A newer node may know of more.
  for (const { alarms } of nodes) for (const kind of alarms?.keys() ?? []) if (!kinds.has(kind)) kinds.set(kind, kind);
  return [...kinds].map(([kind, what]) => [what, nodes.map(({ alarms }) => alarms?.get(kind) ?? null)]);
}

function verdict(rows) {
  const gateways = [...model.gateways];
  const guilty = [...model.nodes.keys()].filter((_, at) => rows.some(([, counts]) => counts[at] > 0)).map((it) => `node ${it}`)
    .concat(gateways.filter(([, it]) => it.figures?.resets > 0).map(([at]) => `gateway ${at}`));
  if (guilty.length > 0) return ['bad', `Perhaps: what never must happen did, at ${guilty.join(', ')}. Its log says more.`];
  const silent = [...model.nodes].filter(([, { up }]) => !up).map(([it]) => `node ${it}`)
    .concat(gateways.filter(([, { up }]) => !up).map(([at]) => `gateway ${at}`));
  if (silent.length > 0) return ['', `Nothing that is known of: all counts are 0, and ${silent.join(', ')} cannot be asked.`];
  return ['well', `No: what must never happen is 0 at all ${model.nodes.size} nodes and ${gateways.length} gateways, since each was started.`];
}

const name = (group) => (group === CONTROL ? 'control group' : `shard ${group}`);

function tell(now, what) {
  const at = new Date(now);
  const item = make('li', {}, make('time', { dateTime: at.toISOString() }, at.toLocaleTimeString()), what);
  byId('news').prepend(item);
  while (byId('news').childElementCount > NEWS_MAX) byId('news').lastElementChild.remove();
}

// ---- drawing ----

/** The colors of the style in force, by their variables; asked for once, as that computes styles. */
let palette = new Map();
function color(variable) {
  if (!palette.has(variable)) {
    palette.set(variable, getComputedStyle(document.documentElement).getPropertyValue(variable).trim());
  }
  return palette.get(variable);
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  palette = new Map();
  model.dirty = true;
});

/** How large each canvas is, in CSS pixels, and whether it can be seen: told, since asking would lay the page out. */
const sizes = new WeakMap();
const resized = new ResizeObserver((entries) => {
  for (const { target, contentRect: { width, height } } of entries) sizes.set(target, { width, height });
  model.dirty = true;
});
const seen = new WeakSet();
const scrolled = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) seen.add(target); else seen.delete(target);
  model.dirty = true;
  // A screen above and below what can be seen too, so that scrolling shows no empty ones.
}, { rootMargin: '100% 0px' });

function canvas() {
  const it = make('canvas');
  resized.observe(it);
  scrolled.observe(it);
  return it;
}

/** An empty canvas's context, as sharp as the screen is, and its size; nothing where it cannot be seen. */
function surface(canvas) {
  const size = sizes.get(canvas);
  if (!size || !seen.has(canvas)) return null;
  const { width, height } = size;
  const scale = window.devicePixelRatio || 1;
  const context = canvas.getContext('2d');
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    context.setTransform(scale, 0, 0, scale, 0, 0);
  }
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

function draw() {
  requestAnimationFrame(draw);
  if (!model.dirty || document.hidden) return;
  model.dirty = false;
  drawLedger();
  drawRows(Date.now());
  drawGateways();
}

/** A table that is built anew only where other rows or columns are in it. */
function table(heads, rows) {
  let shape = '';
  let cells = [];
  return (columns, names, contents) => {
    const wanted = JSON.stringify([columns, names]);
    if (wanted !== shape) {
      shape = wanted;
      byId(heads).replaceChildren(...columns.map((it) => make('th', { scope: 'col' }, it)));
      cells = names.map(() => columns.slice(1).map(() => make('td')));
      byId(rows).replaceChildren(...names.map((it, at) => make('tr', {}, make('th', { scope: 'row' }, it), ...cells[at])));
    }
    contents.forEach((row, at) => row.forEach(([value, bad], column) => {
      text(cells[at][column], value);
      if (cells[at][column].className !== (bad ? 'bad' : '')) cells[at][column].className = bad ? 'bad' : '';
    }));
  };
}

const fillLedger = table('ledger-heads', 'ledger-rows');

function drawLedger() {
  const rows = ledger();
  const [kind, words] = verdict(rows);
  text(byId('verdict'), words);
  byId('verdict').className = kind;
  const resets = [...model.gateways.values()].reduce((total, { figures }) => total + (figures?.resets ?? 0), 0);
  const nodes = [...model.nodes.keys()];
  fillLedger(
    ['what must never happen', ...nodes.map((node) => `node ${node}`), 'gateways'],
    [...rows.map(([what]) => what), 'devices whose place in their mailbox is not the store’s'],
    [
      ...rows.map(([, counts]) => [...counts.map((count) => [count == null ? '?' : whole.format(count), count > 0]), ['', false]]),
      [...nodes.map(() => ['', false]), [whole.format(resets), resets > 0]],
    ]);
}

function rowFor(number) {
  const cells = [...model.nodes.keys()].map(() => make('span'));
  const line = canvas();
  line.setAttribute('role', 'img');
  const term = make('td');
  const head = make('th', { scope: 'row' }, name(number));
  const row = make('tr', {}, head, term, ...cells.map((it) => make('td', {}, it)), make('td', { className: 'line' }, line));
  return { row, cells, line, term };
}

let rows = new Map();
let shaped = '';

/** Builds the table anew where other shards or nodes are in it. */
function shape() {
  const wanted = `${[...model.shards.keys()].sort((one, other) => one - other)}|${[...model.nodes.keys()]}`;
  if (wanted === shaped) return;
  shaped = wanted;
  const nodes = [...model.nodes.keys()].map((node) => make('th', { scope: 'col' }, `node ${node}`));
  byId('heads').replaceChildren(
    make('th', { scope: 'col' }, 'shard'), make('th', { scope: 'col' }, 'term'), ...nodes,
    make('th', { scope: 'col' }, `led, the last ${WINDOW_MS / 1000} s`));
  const numbers = [...model.shards.keys()].sort((one, other) => one - other);
  rows = new Map(numbers.map((number) => [number, rowFor(number)]));
  byId('rows').replaceChildren(...[...rows.values()].map(({ row }) => row));
}

function drawRows(now) {
  shape();
  for (const [number, shard] of model.shards) {
    const { cells, line, term } = rows.get(number);
    text(term, String(shard.term));
    shard.cells.forEach(([kind, what], at) => {
      if (cells[at].className !== kind) cells[at].className = kind;
      text(cells[at], what);
    });
    drawLine(line, shard, now);
  }
}

function drawLine(canvas, shard, now) {
  const gaps = [...shard.spans];
  if (shard.gapFrom) gaps.push({ from: shard.gapFrom, to: now });
  const without = gaps.map((gap) => seconds(gap.to - gap.from)).join(', ');
  const label = without ? `without a leader for ${without}` : 'led all the time';
  if (canvas.getAttribute('aria-label') !== label) canvas.setAttribute('aria-label', label);
  const drawn = surface(canvas);
  if (!drawn) return;
  const { context, width, height } = drawn;
  const x = (at) => width * (1 - (now - at) / WINDOW_MS);
  const from = Math.max(0, x(shard.since));
  context.fillStyle = color('--lead');
  context.fillRect(from, height / 2 - 3, width - from, 6);
  context.font = '11px system-ui, sans-serif';
  for (const gap of gaps) {
    const [start, end] = [Math.max(0, x(gap.from)), Math.max(x(gap.from) + 2, x(gap.to))];
    context.clearRect(start, 0, end - start, height);
    context.fillStyle = color('--gone');
    context.fillRect(start, height / 2 - 1, end - start, 2);
    const label = seconds(gap.to - gap.from);
    const room = context.measureText(label).width + 6;
    const at = end + room < width ? end + 3 : start - room;
    context.clearRect(at - 1, 0, room, height);
    context.fillText(label, at + 1, height / 2 + 4);
  }
}

const FIGURES = [
  ['connections', 'sessions of devices'], ['watched', 'mailboxes watched'], ['acked', 'sends accepted'],
  ['refused', 'sends refused'], ['givenBack', 'sends given back'], ['delivered', 'entries delivered'],
  ['notices', 'notices'], ['pushes', 'pushes accepted'], ['pushesFailed', 'pushes that failed'],
];
const CHARTS = [
  ['acked', 'sends accepted, per second', ''], ['delivered', 'entries delivered, per second', ''],
  ['send', 'send, p99 at most', ' ms'], ['delivery', 'accepted to delivered, p99 at most', ' ms'],
];
const figures = new Map(FIGURES.map(([key]) => [key, make('dd', {}, '–')]));
const charts = new Map(CHARTS.map(([key]) => [key, { canvas: canvas(), value: make('b', {}, '–') }]));

const COLUMNS = ['gateway', 'state', 'sessions', 'accepted/s', 'delivered/s', 'send p99', 'delivery p99', 'pushes', 'of them failed', 'given back'];
const fillGateways = table('gateway-heads', 'gateway-rows');
const shown = (value, unit) => {
  if (value == null) return '–';
  return `${Number.isFinite(value) ? whole.format(Math.round(value)) : '> 10,000'}${unit}`;
};

function drawGateways() {
  if (model.gateways.size === 0) return;
  const gateways = [...model.gateways.values()];
  for (const [key, node] of figures) {
    text(node, whole.format(gateways.reduce((total, it) => total + (it.figures?.[key] ?? 0), 0)));
  }
  for (const [key, , unit] of CHARTS) {
    const points = model.rates.map((rate) => rate[key]);
    const { canvas, value } = charts.get(key);
    text(value, shown(points.at(-1), unit));
    drawChart(canvas, points);
  }
  fillGateways(COLUMNS, [...model.gateways.keys()], gateways.map(({ up, figures, rate }) => {
    const count = (key) => (figures ? whole.format(figures[key]) : '–');
    return [
      [up ? 'answers' : 'does not answer', !up], [count('connections')],
      [shown(rate?.acked, '')], [shown(rate?.delivered, '')],
      [shown(rate && quantile([rate.send], 0.99), ' ms')], [shown(rate && quantile([rate.delivery], 0.99), ' ms')],
      [figures ? whole.format(figures.pushes + figures.pushesFailed) : '–'], [count('pushesFailed')], [count('givenBack')],
    ];
  }));
}

function drawChart(canvas, points) {
  const drawn = surface(canvas);
  if (!drawn) return;
  const { context, width, height } = drawn;
  const known = points.filter((point) => point != null && Number.isFinite(point));
  const top = Math.max(1, ...known);
  context.strokeStyle = color('--line');
  context.strokeRect(0.5, 0.5, width - 1, height - 1);
  context.strokeStyle = color('--series');
  context.lineWidth = 1.5;
  context.beginPath();
  let drawing = false;
  points.forEach((point, at) => {
    if (point == null || !Number.isFinite(point)) { drawing = false; return; }
    const x = width * ((SAMPLES_MAX - points.length + at + 1) / SAMPLES_MAX);
    const y = height - 3 - (height - 8) * (point / top);
    if (drawing) context.lineTo(x, y); else context.moveTo(x, y);
    drawing = true;
  });
  context.stroke();
}

function build() {
  byId('figures').append(...FIGURES.map(([key, label]) => make('div', {}, make('dt', {}, label), figures.get(key))));
  byId('charts').append(...CHARTS.map(([key, label]) => {
    const { canvas, value } = charts.get(key);
    canvas.setAttribute('aria-hidden', 'true');
    return make('figure', {}, make('figcaption', {}, `${label}: `, value), canvas);
  }));
}

// ---- the stream ----

let session = 0;

function say(what, bad = false) {
  text(byId('state'), what);
  byId('state').classList.toggle('bad', bad);
}

/** Reads samples until the stream ends; the status, if it was refused. */
async function read(token, mine) {
  const response = await fetch('/live/events', { headers: { authorization: `Bearer ${token}` }, cache: 'no-store' });
  if (!response.ok) return { status: response.status, why: (await response.text()).trim() };
  say('live');
  byId('shown').hidden = false;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  while (session === mine) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split('\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6)).join('\n');
      if (data) fold(JSON.parse(data), Date.now());
    }
  }
  await reader.cancel();
  return {};
}

async function follow(token) {
  const mine = ++session;
  for (let failed = 0; session === mine; failed += 1) {
    let refused = {};
    const began = Date.now();
    try {
      refused = await read(token, mine);
    } catch { /* The gateway is not there: it is tried again. */ }
    if (session !== mine) return;
    if (refused.status === 401 || refused.status === 403) {
      sessionStorage.removeItem('token');
      say(`refused: ${refused.why}`, true);
      byId('entry').hidden = false;
      byId('token').focus();
      return;
    }
    if (Date.now() - began > 10_000) failed = 0;
    say(refused.why ?? 'the gateway does not answer; trying again', true);
    await new Promise((done) => setTimeout(done, RETRY_MS[Math.min(failed, RETRY_MS.length - 1)]));
  }
}

byId('entry').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = byId('token').value.trim();
  byId('token').value = '';
  sessionStorage.setItem('token', token);
  byId('entry').hidden = true;
  say('connecting');
  follow(token);
});

build();
requestAnimationFrame(draw);
const kept = sessionStorage.getItem('token');
if (kept) {
  byId('entry').hidden = true;
  follow(kept);
}
