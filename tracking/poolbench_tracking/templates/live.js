// The controls: pointer, keys, slider, buttons; what a move changed, in a sentence.
"use strict";

const DIRECTIONS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const TURN = 5; // degrees per key
const stage = find("#stage");
const slider = find("#degrees");
let visited = new Set(); // flips that were shown

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const listed = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);
const percent = (value) => `${(100 * value).toFixed(1)} %`;

// "3 px right and 1 px down"
function way(dy, dx) {
  const parts = [];
  if (dx) parts.push(`${Math.abs(dx)} px ${dx > 0 ? "right" : "left"}`);
  if (dy) parts.push(`${Math.abs(dy)} px ${dy > 0 ? "down" : "up"}`);
  return parts.join(" and ");
}

// Says what a change of the canvas did to the answers of the networks.
function sentence(what, before, after) {
  const name = (result) => result.network.name;
  const changed = after.filter((result, index) => result.answer !== before[index].answer).map(name);
  const same = after.filter((result, index) => result.answer === before[index].answer).map(name);
  if (changed.length && !same.length) return `${what}: all answers changed.`;
  if (changed.length) {
    return `${what}: ${listed(changed)} changed ${changed.length > 1 ? "their answers" : "its answer"}; ${listed(same)} did not.`;
  }
  const moves = after.map(({ probabilities }, index) => {
    const { answer, probabilities: old } = before[index];
    return { index, answer, from: old[answer], to: probabilities[answer] };
  });
  const most = moves.reduce((a, b) => (Math.abs(b.to - b.from) > Math.abs(a.to - a.from) ? b : a));
  if (Math.abs(most.to - most.from) < 0.0005) return `${what}: no answer changed, nor any probability by 0.05 points.`;
  const label = state.scene.classes[most.answer];
  return `${what}: no answer changed. Largest move: ${name(after[most.index])}, ${label} from ${percent(most.from)} to ${percent(most.to)}.`;
}

// Evaluates the visible networks and draws everything; `what` says what was changed, "" says nothing.
function refresh(what = "") {
  const before = results;
  results = visible().map(lookAt);
  paintPixels(stage, canvasAt(state.y, state.x));
  cards.forEach((card, index) => {
    drawCard(card, results[index]);
    card.root.classList.toggle("flipped", Boolean(what) && results[index].answer !== before[index].answer);
  });
  find("#where").textContent = `row ${state.y - range.top + 1} of ${range.rows}, column ${state.x - range.left + 1} of ${range.columns}`;
  if (what) find("#said").textContent = sentence(what, before, results);
  if (visible().some((network) => mapOf(network).done < range.rows * range.columns)) fillMaps();
}

function moveTo(y, x) {
  const [top, left] = [clamp(Math.round(y), range.top, range.bottom), clamp(Math.round(x), range.left, range.right)];
  const [dy, dx] = [top - state.y, left - state.x];
  if (!dy && !dx) return;
  [state.y, state.x] = [top, left];
  refresh(`Moved ${way(dy, dx)}`);
}

function turnTo(degrees) {
  const whole = ((((Math.round(degrees) + 180) % 360) + 360) % 360) - 180;
  if (whole === state.degrees) return;
  state.degrees = whole;
  turn();
  refresh(`Rotated to ${whole}°`);
}

// Applies the state's angle to the object.
function turn() {
  const { pixels } = state.object;
  patch = state.degrees ? rotate(pixels, state.degrees) : pixels;
  range = rangeOf(patch);
  [state.y, state.x] = [clamp(state.y, range.top, range.bottom), clamp(state.x, range.left, range.right)];
  visited = new Set();
  slider.value = state.degrees;
  find("#angle").textContent = `${state.degrees}°`;
}

function choose(object) {
  [state.y, state.x] = object.start;
  Object.assign(state, { object, degrees: 0 });
  turn();
  find("#name").textContent = object.name;
  for (const button of find("#objects").children) button.setAttribute("aria-pressed", button.object === object);
  cards.forEach((card) => Object.assign(card, { scales: {}, channels: {} }));
  refresh();
  find("#said").textContent = "Move the object by one pixel: drag it, or use the arrow keys.";
}

function makeCard(network) {
  const root = make("section", "card");
  const { accuracy, images, learned } = network;
  const parts = {
    title: Object.assign(make("h2", "", network.name), { title: network.detail }),
    known: make("p", "soft", `${percent(accuracy)} right of ${plural(images, "test image")}${learned ? "" : ": not learned"}`),
    verdict: make("p", "verdict"),
    bars: make("div", state.scene.classes.length === 2 ? "bars two" : "bars"),
    maps: make("div", "views"),
  };
  const figure = (className, caption) => {
    const box = make("figure", className);
    const body = box.appendChild(make("div", className === "all" ? "positions" : "tiles"));
    const text = box.appendChild(make("figcaption", "", caption));
    parts.maps.append(box);
    return [body, text];
  };
  const [answer, share] = [make("b"), make("span")];
  parts.verdict.append(answer, share);
  const bars = state.scene.classes.map((label) => {
    const bar = make("span", "bar");
    bar.append(make("i"), make("small", "", state.scene.classes.length === 2 ? "" : label.slice(0, 2)));
    bar.title = label;
    return bar;
  });
  parts.bars.append(...(bars.length === 2 ? bars.slice(1) : bars));
  parts.bars.setAttribute("aria-hidden", "true");
  const [all, count] = figure("all", "");
  const positions = all.appendChild(make("canvas"));
  positions.setAttribute("role", "img");
  positions.setAttribute("aria-label", `answers of ${network.name} at all positions`);
  const cursor = all.appendChild(make("span", "cursor"));
  const [pooled, pooledText] = network.program.pooled === null ? [null, null] : figure("pooled", "first pool");
  const [maps] = figure("classes", network.program.classMaps ? (network.program.outputs === 1 ? "class map" : "class maps") : "before the head");
  root.append(...Object.values(parts));
  const card = { network, root, answer, share, bars, positions, cursor, count, pooled, pooledText, maps, scales: {}, channels: {}, drawn: {} };
  positions.addEventListener("click", (event) => {
    const box = positions.getBoundingClientRect();
    const side = Math.max(range.rows, range.columns);
    const at = (offset, size, count) => Math.floor((offset / size) * side) - ((side - count) >> 1);
    moveTo(range.top + at(event.clientY - box.top, box.height, range.rows), range.left + at(event.clientX - box.left, box.width, range.columns));
  });
  return card;
}

function showNetworks() {
  cards = visible().map(makeCard);
  find("#cards").replaceChildren(...cards.map((card) => card.root));
  find("#cards").style.setProperty("--cards", cards.length);
}

function radios(holder, names, chosen, onChange) {
  const labels = names.map((name) => {
    const label = make("label", "", name);
    const input = make("input");
    Object.assign(input, { type: "radio", name: holder.id, value: name, checked: name === chosen });
    input.addEventListener("change", () => onChange(name));
    label.prepend(input);
    return label;
  });
  holder.querySelectorAll("label").forEach((label) => label.remove());
  holder.append(...labels);
  holder.hidden = names.length < 2;
}

function chooseHead(head) {
  state.head = head;
  find("#heads").querySelectorAll("input").forEach((input) => (input.checked = input.value === head));
  showNetworks();
  refresh();
}

function chooseScene(scene) {
  state.scene = scene;
  find("#scenes").querySelectorAll("input").forEach((input) => (input.checked = input.value === scene.title));
  const heads = [...new Set(scene.networks.map((network) => network.head))];
  state.head = heads[0];
  radios(find("#heads"), heads, state.head, chooseHead);
  const buttons = scene.objects.map((object, index) => {
    object.index = index;
    const button = make("button", "object");
    Object.assign(button, { type: "button", title: object.name, object });
    button.setAttribute("aria-label", object.name);
    paintPixels(button.appendChild(make("canvas")), object.pixels);
    button.addEventListener("click", () => choose(object));
    return button;
  });
  find("#objects").replaceChildren(...buttons);
  find("#note").textContent = scene.note;
  find("#details").replaceChildren(...scene.networks.map(({ detail, program }) => make("li", "", `${detail}; ${plural(program.parameters, "parameter")}`)));
  find("#key").textContent =
    scene.classes.length === 2
      ? `${scene.classes[0]} ↔ ${scene.classes[1]}. The answer flips where the colour changes.`
      : "another answer ↔ the object's own class. Between blue and orange, the answer flips.";
  state.object = scene.objects[0];
  showNetworks();
  choose(scene.objects[0]);
}

// Goes to the nearest computed pair of neighbouring positions with different answers that was not shown yet.
function nextFlip() {
  let best = null;
  for (const network of visible()) {
    const { answers } = mapOf(network);
    for (let i = 0; i < range.rows; i++) {
      for (let j = 0; j < range.columns; j++) {
        for (const [di, dj] of [[0, 1], [1, 0]]) {
          if (i + di >= range.rows || j + dj >= range.columns) continue;
          const [here, there] = [answers[i * range.columns + j], answers[(i + di) * range.columns + j + dj]];
          const key = `${i},${j},${di}`;
          if (here < 0 || there < 0 || here === there || visited.has(key)) continue;
          const distance = Math.hypot(i + range.top - state.y, j + range.left - state.x);
          if (!best || distance < best.distance) best = { distance, key, y: i + range.top, x: j + range.left, di, dj };
        }
      }
    }
  }
  if (!best) {
    find("#said").textContent = `No ${visited.size ? "further " : ""}pair of neighbouring positions with different answers is known so far.`;
    return;
  }
  visited.add(best.key);
  [state.y, state.x] = [best.y, best.x];
  refresh();
  moveTo(best.y + best.di, best.x + best.dj);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = DIRECTIONS[event.key];
  if (step) moveTo(state.y + step[0], state.x + step[1]);
  else if (event.key === "," || event.key === ".") turnTo(state.degrees + (event.key === "," ? TURN : -TURN));
  else if (event.key === "Home") moveTo(...state.object.start);
  else return;
  event.preventDefault();
}

stage.addEventListener("keydown", onKey);
let held = null; // where the pointer went down, and where the object was
stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  held = { clientY: event.clientY, clientX: event.clientX, y: state.y, x: state.x };
});
stage.addEventListener("pointermove", (event) => {
  if (!held) return;
  const box = stage.getBoundingClientRect();
  const [, rows, columns] = state.scene.canvas;
  const dy = Math.round(((event.clientY - held.clientY) * rows) / box.height);
  const dx = Math.round(((event.clientX - held.clientX) * columns) / box.width);
  moveTo(held.y + dy, held.x + dx);
});
for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (held = null));
slider.addEventListener("input", () => turnTo(Number(slider.value)));
find("#flip").addEventListener("click", nextFlip);
for (const button of document.querySelectorAll("[data-key]")) {
  const [dy, dx] = DIRECTIONS[button.dataset.key];
  button.addEventListener("click", () => moveTo(state.y + dy, state.x + dx));
}
dark.addEventListener("change", () => refresh());
radios(find("#scenes"), page.scenes.map((scene) => scene.title), page.scenes[0].title, (title) =>
  chooseScene(page.scenes.find((scene) => scene.title === title)),
);
chooseScene(page.scenes[0]);

const plain = (map) => map && { shape: map.shape, data: Array.from(map.data) };
window.poolbench = {
  // Choose by index, position or angle; then read.
  scene: (index) => chooseScene(page.scenes[index]),
  head: chooseHead,
  object: (index) => choose(state.scene.objects[index]),
  move: moveTo,
  rotate: turnTo,
  state: () => ({ scene: state.scene.title, head: state.head, object: state.object.name, y: state.y, x: state.x, degrees: state.degrees, range }),
  // The pixels in [0, 1] that the networks see.
  pixels: () => plain(canvasAt(state.y, state.x)),
  // What each visible network says about them, and about all positions.
  networks: () =>
    results.map((result) => ({
      name: result.network.name,
      head: result.network.head,
      logits: result.logits,
      probabilities: result.probabilities,
      answer: state.scene.classes[result.answer],
      pooled: plain(result.pooled),
      maps: plain(result.maps),
      positions: { ...tally(mapOf(result.network)), values: Array.from(mapOf(result.network).values) },
    })),
  // The outputs of all steps of any program (poolbench.inspect.program) for pixels {shape, data}.
  evaluate: (program, pixels) => evaluate(decode(program), { ...pixels, data: Float32Array.from(pixels.data) }).map(plain),
  rotated: (pixels, degrees) => plain(rotate({ ...pixels, data: Float32Array.from(pixels.data) }, degrees)),
};
