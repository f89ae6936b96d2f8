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

const model = { shards: new Map(), nodes: new Map(), gateway: null, rates: [], dirty: false, shape: '' };

/** Who leads a group: of the nodes that answer, the one of the highest term that says it does itself. */
function leaderOf(group, nodes) {
  let found = { node: 0, term: 0, last: 0 };
  for (const { node, stands } of nodes) {
    const own = stands?.byGroup.get(group);
    if (own && own.leader === node && !own.stopped && own.term >= found.term) {
      found = { node, term: own.term, last: own.last_log };
    }
  }
  return found;
}

function fold(sample, now) {
  for (const { stands } of sample.nodes) {
    if (stands) stands.byGroup = new Map(stands.groups.map((group) => [group.group, group]));
  }
  const groups = new Set(model.shards.keys());
  for (const { stands } of sample.nodes) stands?.groups.forEach((it) => groups.add(it.group));
  for (const number of groups) foldShard(number, sample.nodes, now);
  for (const { node, stands } of sample.nodes) {
    const before = model.nodes.get(node);
    if (before !== undefined && before.up !== Boolean(stands)) {
      tell(now, `node ${node} ${stands ? 'answers again' : 'does not answer'}`);
    }
    model.nodes.set(node, { up: Boolean(stands), version: stands?.version, free: stands?.disk_free_bytes });
  }
  if (sample.gateway) foldGateway(sample.gateway, now);
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

function foldGateway(lines, now) {
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
  const accepted = (labels) => labels.includes('"OK"');
  const next = {
    at: now,
    connections: sum('gateway_connections'),
    watched: sum('gateway_mailboxes_watched'),
    acked: sum('gateway_sends_total', accepted),
    refused: sum('gateway_sends_total', (labels) => !accepted(labels)),
    givenBack: sum('gateway_sends_given_back_total'),
    delivered: sum('gateway_delivered_entries_total'),
    notices: sum('gateway_notices_total'),
    pushes: sum('gateway_pushes_total'),
    send: values.get('gateway_send_seconds_bucket'),
    delivery: values.get('gateway_delivery_seconds_bucket'),
  };
  const before = model.gateway;
  // A gateway that was started again counts from 0.
  if (before && next.acked >= before.acked && next.at > before.at) {
    const over = (next.at - before.at) / 1000;
    model.rates.push({
      at: now,
      acked: (next.acked - before.acked) / over,
      delivered: (next.delivered - before.delivered) / over,
      send: quantile(before.send, next.send, 0.99),
      delivery: quantile(before.delivery, next.delivery, 0.99),
    });
    model.rates = model.rates.slice(-SAMPLES_MAX);
  }
  model.gateway = next;
}

/** The upper bound, in ms, of the bucket in which a quantile of what came between two samples lies. */
function quantile(before, after, q) {
  const counts = [];
  for (const [labels, value] of after ?? []) {
    const bound = /le="([^"]+)"/.exec(labels)?.[1];
    if (bound) counts.push([bound === '+Inf' ? Infinity : Number(bound), value - (before?.get(labels) ?? 0)]);
  }
  const bounds = new Map();
  for (const [bound, count] of counts) bounds.set(bound, (bounds.get(bound) ?? 0) + count);
  const sorted = [...bounds].sort((one, other) => one[0] - other[0]);
  const total = sorted.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const found = sorted.find(([, count]) => count >= total * q);
  return found[0] * 1000;
}

const name = (group) => (group === CONTROL ? 'control group' : `shard ${group}`);

function tell(now, what) {
  const at = new Date(now);
  const item = make('li', {}, make('time', { dateTime: at.toISOString() }, at.toLocaleTimeString()), what);
  byId('news').prepend(item);
  while (byId('news').childElementCount > NEWS_MAX) byId('news').lastElementChild.remove();
}

// ---- drawing ----

const colors = () => {
  const style = getComputedStyle(document.documentElement);
  return (variable) => style.getPropertyValue(variable).trim();
};

/** The canvas's context, as sharp as the screen is, and its size in CSS pixels. */
function surface(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

function draw() {
  requestAnimationFrame(draw);
  if (!model.dirty || document.hidden) return;
  model.dirty = false;
  const color = colors();
  drawRows(color, Date.now());
  drawGateway(color);
}

function rowFor(number) {
  const cells = [...model.nodes.keys()].map(() => make('span'));
  const canvas = make('canvas');
  canvas.setAttribute('role', 'img');
  const term = make('td');
  const head = make('th', { scope: 'row' }, name(number));
  const row = make('tr', {}, head, term, ...cells.map((it) => make('td', {}, it)), make('td', { className: 'line' }, canvas));
  return { row, cells, canvas, term };
}

let rows = new Map();

/** Builds the table anew where other shards or nodes are in it. */
function shape() {
  const wanted = `${[...model.shards.keys()].sort((one, other) => one - other)}|${[...model.nodes.keys()]}`;
  if (wanted === model.shape) return;
  model.shape = wanted;
  const nodes = [...model.nodes.keys()].map((node) => make('th', { scope: 'col' }, `node ${node}`));
  byId('heads').replaceChildren(
    make('th', { scope: 'col' }, 'shard'), make('th', { scope: 'col' }, 'term'), ...nodes,
    make('th', { scope: 'col' }, `led, the last ${WINDOW_MS / 1000} s`));
  const numbers = [...model.shards.keys()].sort((one, other) => one - other);
  rows = new Map(numbers.map((number) => [number, rowFor(number)]));
  byId('rows').replaceChildren(...[...rows.values()].map(({ row }) => row));
}

function drawRows(color, now) {
  shape();
  for (const [number, shard] of model.shards) {
    const { cells, canvas, term } = rows.get(number);
    text(term, String(shard.term));
    shard.cells.forEach(([kind, what], at) => {
      cells[at].className = kind;
      text(cells[at], what);
    });
    drawLine(canvas, shard, color, now);
  }
}

function drawLine(canvas, shard, color, now) {
  const { context, width, height } = surface(canvas);
  const x = (at) => width * (1 - (now - at) / WINDOW_MS);
  const from = Math.max(0, x(shard.since));
  context.fillStyle = color('--lead');
  context.fillRect(from, height / 2 - 3, width - from, 6);
  const gaps = [...shard.spans];
  if (shard.gapFrom) gaps.push({ from: shard.gapFrom, to: now });
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
  const without = gaps.map((gap) => seconds(gap.to - gap.from)).join(', ');
  const label = without ? `without a leader for ${without}` : 'led all the time';
  if (canvas.getAttribute('aria-label') !== label) canvas.setAttribute('aria-label', label);
}

const FIGURES = [
  ['connections', 'connections'], ['watched', 'mailboxes watched'], ['acked', 'sends accepted'],
  ['refused', 'sends refused'], ['givenBack', 'sends given back'], ['delivered', 'entries delivered'],
  ['notices', 'notices'], ['pushes', 'pushes'],
];
const CHARTS = [
  ['acked', 'sends accepted, per second', ''], ['delivered', 'entries delivered, per second', ''],
  ['send', 'send, p99 at most', ' ms'], ['delivery', 'accepted to delivered, p99 at most', ' ms'],
];
const figures = new Map(FIGURES.map(([key]) => [key, make('dd', {}, '–')]));
const charts = new Map(CHARTS.map(([key]) => [key, { canvas: make('canvas'), value: make('b', {}, '–') }]));

function drawGateway(color) {
  if (!model.gateway) return;
  for (const [key, node] of figures) text(node, whole.format(model.gateway[key]));
  for (const [key, , unit] of CHARTS) {
    const points = model.rates.map((rate) => rate[key]);
    const last = points.at(-1);
    const { canvas, value } = charts.get(key);
    text(value, last == null ? '–' : `${Number.isFinite(last) ? whole.format(Math.round(last)) : '> 10,000'}${unit}`);
    drawChart(canvas, points, color);
  }
}

function drawChart(canvas, points, color) {
  const { context, width, height } = surface(canvas);
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
