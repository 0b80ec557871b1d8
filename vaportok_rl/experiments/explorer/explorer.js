// Draws the page from its data: the videos, the table, two charts and the weights' sliders.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const state = { clip: 0, places: [], weights: { ...data.weights }, a: 0, b: data.policies.length - 1, frame: 0 };
const names = Object.keys(data.weights);
const nearest = (n) => argmax(data.lengths.map((length) => -Math.abs(length - n)));
const psnr = (mse) => -10 * Math.log10(Math.max(mse, 1e-10));
const colour = (name) => `var(--term-${names.indexOf(name) % 8})`;
const SVG = "http://www.w3.org/2000/svg";

/** Makes an element with attributes and children (elements or text) in a parent. */
function add(parent, name, attributes = {}, ...children) {
  const inSvg = parent.namespaceURI === SVG;
  const made = inSvg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  parent.append(made);
  return made;
}

// Videos: a sheet has the original's frames, then the frames at each length, row by row.
const sheets = data.clips.map(() => null);
const ready = Promise.all(data.clips.map(load));

async function load(clip, number) {
  const image = new Image();
  image.src = clip.sheet;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height);
  sheets[number] = canvas.getContext("2d", { willReadFrequently: true });
  sheets[number].drawImage(image, 0, 0);
  if (number === state.clip) drawVideos();
}

function pixels(sheet, cell) {
  const { size, columns } = data;
  return sheet.getImageData((cell % columns) * size, Math.floor(cell / columns) * size, size, size);
}

function drawVideos() {
  const sheet = sheets[state.clip];
  if (!sheet) return;
  const original = pixels(sheet, state.frame);
  const decoded = pixels(sheet, (1 + state.places[state.clip]) * data.frames + state.frame);
  const error = new ImageData(data.size, data.size);
  error.data.forEach((_, byte) => {
    const difference = data.gain * Math.abs(original.data[byte] - decoded.data[byte]);
    error.data[byte] = byte % 4 === 3 ? 255 : difference;
  });
  for (const [id, shown] of Object.entries({ original, decoded, error })) at(id).getContext("2d").putImageData(shown, 0, 0);
}

// What each row of the table and each mark of the charts keeps of all clips.
function choices() {
  const policy = (number) => data.policies[number].lengths.map(nearest);
  const rows = [
    { key: "now", label: "now", places: [...state.places] },
    { key: "oracle", label: "oracle", places: state.oracle },
    { key: "fixed", label: "best fixed length", places: data.clips.map(() => state.fixed) },
    { key: "a", label: `A: ${data.policies[state.a].name}`, places: policy(state.a), policy: data.policies[state.a] },
  ];
  if (state.b !== state.a)
    rows.push({ key: "b", label: `B: ${data.policies[state.b].name}`, places: policy(state.b), policy: data.policies[state.b] });
  return rows;
}

function drawTable(rows) {
  const body = at("choices"), focused = document.activeElement?.dataset?.row;
  body.replaceChildren();
  for (const { key, label, places, policy } of rows) {
    const row = add(body, "tr", { id: `row-${key}` });
    const place = places[state.clip];
    const button = add(add(row, "th", { scope: "row" }), "button", { type: "button", "data-row": key, style: `--mark: var(--${key})` }, label);
    button.onclick = () => { state.places = [...places]; draw(); };
    const cells = [
      policy ? policy.lengths[state.clip] : data.lengths[place],
      psnr(data.mse[state.clip][place]).toFixed(1),
      clipReward(data, state.weights, places, state.clip).toFixed(3),
      pathReward(data, state.weights, places).toFixed(3),
    ];
    for (const cell of cells) add(row, "td", {}, String(cell).replace("-", "−"));
    if (key === focused) button.focus();
  }
}

// Charts: the axis of lengths is shared.
const WIDTH = 480, LEFT = 46, RIGHT = 8, TOP = 18, BOTTOM = 40;

function chart(id, height, low, high, title, rows) {
  const svg = at(id);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
  const last = data.lengths.length - 1;
  const x = (place) => LEFT + ((WIDTH - LEFT - RIGHT) * (data.lengths[place] - 1)) / Math.max(1, data.lengths[last] - 1);
  const y = (value) => TOP + ((height - TOP - BOTTOM) * (high - value)) / (high - low);
  for (const value of ticks(low, high)) {
    add(svg, "line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) });
    add(svg, "text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, String(+value.toPrecision(3)).replace("-", "−"));
  }
  for (const n of [1, ...[1, 2, 3].map((part) => Math.round((part * data.tokens) / 4)), data.tokens])
    add(svg, "text", { x: x(nearest(n)), y: height - BOTTOM + 16, "text-anchor": "middle" }, String(n));
  add(svg, "text", { x: (LEFT + WIDTH) / 2, y: height - 6, "text-anchor": "middle" }, "tokens kept n");
  add(svg, "text", { x: 4, y: 12 }, title);
  const marks = () => rows.forEach(({ key, places }, number) => {
    const across = x(places[state.clip]);
    const dash = key === "now" ? "none" : `${3 + number} 3`;
    add(svg, "line", { class: "mark", "data-mark": key, x1: across, x2: across, y1: TOP, y2: height - BOTTOM, stroke: `var(--${key})`, "stroke-dasharray": dash });
  });
  svg.onclick = (event) => {
    const box = svg.getBoundingClientRect();
    const across = ((event.clientX - box.left) / box.width) * WIDTH;
    state.places[state.clip] = argmax(data.lengths.map((_, place) => -Math.abs(x(place) - across)));
    draw();
  };
  return { svg, x, y, marks };
}

function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 2));
  const wide = [1, 2, 5].map((factor) => factor * step).find((size) => (high - low) / size <= 6) ?? 10 * step;
  const first = Math.ceil(low / wide);
  return Array.from({ length: Math.floor(high / wide) - first + 1 }, (_, number) => (first + number) * wide);
}

function drawReward(rows) {
  const bands = data.lengths.map((_, place) => weighted(data, state.weights, state.places.with(state.clip, place), state.clip));
  const totals = bands.map(sum);
  const side = (sign) => bands.map((band) => sum(Object.values(band).map((value) => Math.max(0, sign * value))));
  const high = Math.max(0.1, ...side(1)), low = Math.min(0, ...side(-1).map((value) => -value));
  const { svg, x, y, marks } = chart("reward-chart", 300, low, high, "weighted terms, stacked; line: their sum (reward, no unit)", rows);
  const bases = { 1: bands.map(() => 0), [-1]: bands.map(() => 0) };
  for (const name of names) {
    for (const sign of [1, -1]) {
      const base = bases[sign];
      const top = base.map((value, place) => value + sign * Math.max(0, sign * (bands[place][name] ?? 0)));
      if (top.every((value, place) => value === base[place])) continue;
      const forth = top.map((value, place) => `${x(place)},${y(value)}`);
      const back = base.map((value, place) => `${x(place)},${y(value)}`).reverse();
      const band = add(svg, "polygon", { points: [...forth, ...back].join(" "), fill: colour(name), "data-term": name });
      add(band, "title", {}, name);
      bases[sign] = top;
    }
  }
  add(svg, "polyline", { class: "total", points: totals.map((value, place) => `${x(place)},${y(value)}`).join(" ") });
  marks();
  const n = data.lengths[state.places[state.clip]];
  svg.setAttribute("aria-label", `Reward against length, from ${Math.min(...totals).toFixed(2)} to ${Math.max(...totals).toFixed(2)}; ${totals[state.places[state.clip]].toFixed(3)} at n = ${n}`);
}

function drawDistribution(rows) {
  const shown = rows.filter(({ policy }) => policy?.probabilities);
  const curves = shown.map(({ key, policy }) => [key, policy.probabilities[state.clip]]);
  const high = Math.max(0.01, ...curves.flatMap(([, values]) => values));
  const { svg, x, y, marks } = chart("distribution-chart", 200, 0, high, "probability of each length", rows);
  marks();
  for (const [key, values] of curves)
    add(svg, "polyline", { class: "chosen", stroke: `var(--${key})`, points: data.lengths.map((_, place) => `${x(place)},${y(values[place])}`).join(" ") });
  const words = rows.filter(({ policy }) => policy).map(({ label, policy }) => `${label} keeps ${policy.lengths[state.clip]} tokens`);
  svg.setAttribute("aria-label", `Probability of each length; ${words.join("; ")}`);
}

function draw() {
  const rows = choices(), place = state.places[state.clip], n = data.lengths[place];
  at("length").value = place;
  at("length").setAttribute("aria-valuetext", `${n} of ${data.tokens} tokens`);
  at("length-value").value = `${n} of ${data.tokens}`;
  at("decoded-title").textContent = `${n} token${n > 1 ? "s" : ""}, ${psnr(data.mse[state.clip][place]).toFixed(1)} dB`;
  drawVideos();
  drawTable(rows);
  drawReward(rows);
  drawDistribution(rows);
  for (const name of names) at(`weight-${name}-value`).value = (+state.weights[name]).toFixed(2).replace("-", "−");
}

/** Finds the best lengths under the present weights. */
function judge() {
  state.oracle = oracle(data, state.weights);
  state.fixed = bestFixed(data, state.weights);
  draw();
}

function choose(clip) {
  state.clip = clip;
  draw();
}

function setUp() {
  at("about").textContent = data.about;
  at("made").textContent = data.made;
  at("error-title").textContent = `error × ${data.gain}`;
  at("reward-note").textContent = "The other clips keep their lengths while this one's changes: diversity is paid for the path of all clips.";
  for (const id of ["original", "decoded", "error"]) at(id).width = at(id).height = data.size;
  data.clips.forEach(({ title }, clip) => {
    const label = add(at("clips"), "label");
    const radio = add(label, "input", { type: "radio", name: "clip", id: `clip-${clip}` });
    label.append(` ${title}`);
    radio.checked = clip === 0;
    radio.onchange = () => choose(clip);
  });
  for (const key of ["a", "b"]) {
    const select = at(`policy-${key}`);
    data.policies.forEach(({ name }, number) => add(select, "option", { value: number }, name));
    select.value = state[key];
    select.onchange = () => { state[key] = +select.value; draw(); };
  }
  for (const name of names) {
    const label = add(at("weights"), "label");
    add(label, "span", { class: "term", style: `--term: ${colour(name)}` }, name);
    const given = data.weights[name], most = Math.max(4, 2 * Math.abs(given));
    const slider = add(label, "input", { type: "range", id: `weight-${name}`, min: given < 0 ? -most : 0, max: most, step: most / 80, value: given });
    add(label, "output", { id: `weight-${name}-value`, for: slider.id });
    slider.oninput = () => { state.weights[name] = +slider.value; judge(); };
  }
  at("reset").onclick = () => {
    state.weights = { ...data.weights };
    for (const name of names) at(`weight-${name}`).value = data.weights[name];
    judge();
  };
  at("length").max = data.lengths.length - 1;
  at("length").oninput = () => { state.places[state.clip] = +at("length").value; draw(); };
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let playing = !still;
  const label = () => { at("play").textContent = playing ? "Pause" : "Play"; at("play").setAttribute("aria-pressed", playing); };
  at("play").onclick = () => { playing = !playing; label(); };
  label();
  setInterval(() => {
    if (!playing) return;
    state.frame = (state.frame + 1) % data.frames;
    drawVideos();
  }, 1000 / data.rate);
  state.places = data.policies[0].lengths.map(nearest);
  judge();
}

setUp();
