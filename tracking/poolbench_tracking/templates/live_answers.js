// What the page knows: the scene, the object, where it may lie, and the answers of all visible networks.
"use strict";

const MARGIN = 4; // px: how far an object that fills the canvas may move from its place
const TILES = 4; // channels of a feature map that are shown
const SLICE = 12; // ms of computing between two looks at the input
const KEPT = 60; // maps of all positions that are remembered

const page = JSON.parse(document.getElementById("live-data").textContent);
const find = (selector, root = document) => root.querySelector(selector);
const make = (tag, className = "", text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

for (const scene of page.scenes) {
  scene.networks.forEach((network) => decode(network.program));
  for (const object of scene.objects) {
    object.pixels = { shape: object.shape, data: Float32Array.from(bytesOf(object.data), (value) => value / 255) };
  }
}

const state = { scene: page.scenes[0], head: "", object: null, y: 0, x: 0, degrees: 0 };
let patch = null; // the rotated object
let range = null; // the positions (top, bottom, left, right) of the patch, ends included
let results = []; // the visible networks at the current position
let cards = [];
const allMaps = new Map(); // what is known about all positions, by network, object and angle

// Where the patch may lie: the object is whole on the canvas, or moves by MARGIN if it is too large for that.
function rangeOf(rotated) {
  const [channels, height, width] = rotated.shape;
  const [, rows, columns] = state.scene.canvas;
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < channels; c++) {
      if (rotated.data[c * height * width + i] < 1 / 512) continue;
      const [y, x] = [Math.floor(i / width), i % width];
      [top, bottom, left, right] = [Math.min(top, y), Math.max(bottom, y), Math.min(left, x), Math.max(right, x)];
    }
  }
  const axis = (first, last, size, start) => {
    const [low, high] = [-first, size - 1 - last];
    return high - low >= 2 * MARGIN ? [low, high] : [Math.min(low, start - MARGIN), Math.max(high, start + MARGIN)];
  };
  const [low, high] = axis(top, bottom, rows, state.object.start[0]);
  const [first, last] = axis(left, right, columns, state.object.start[1]);
  return { top: low, bottom: high, left: first, right: last, rows: high - low + 1, columns: last - first + 1 };
}

// The canvas with the patch at a position; what lies outside is lost.
function canvasAt(y, x) {
  const out = zeros(state.scene.canvas);
  const [channels, height, width] = patch.shape;
  const [, rows, columns] = out.shape;
  for (let c = 0; c < channels; c++) {
    for (let i = Math.max(0, -y); i < Math.min(height, rows - y); i++) {
      for (let j = Math.max(0, -x); j < Math.min(width, columns - x); j++) {
        out.data[(c * rows + y + i) * columns + x + j] = patch.data[(c * height + i) * width + j];
      }
    }
  }
  return out;
}

// Logits -> probabilities of all classes; one logit decides between two.
function probabilitiesOf(logits) {
  if (logits.length === 1) {
    const p = 1 / (1 + Math.exp(-logits[0]));
    return [1 - p, p];
  }
  const top = maximum(logits);
  const weights = Array.from(logits, (value) => Math.exp(value - top));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / sum);
}

// The class whose probability the map shows: the object's own, the second of two.
const shownClass = () => (state.scene.classes.length === 2 ? 1 : state.object.label);

// The probability of a class against its strongest rival: above 1/2 where it is the answer.
function against(probabilities, label) {
  const rival = maximum(probabilities.filter((_, index) => index !== label));
  return probabilities[label] / (probabilities[label] + rival);
}

function answerOf(logits) {
  const probabilities = probabilitiesOf(logits);
  const answer = probabilities.length === 2 && logits.length === 1 ? Number(logits[0] > 0) : probabilities.indexOf(maximum(probabilities));
  return { logits: Array.from(logits), probabilities, answer };
}

function lookAt(network) {
  const outputs = evaluate(network.program, canvasAt(state.y, state.x));
  const { pooled, maps } = network.program;
  return { network, ...answerOf(outputs.at(-1).data), pooled: pooled === null ? null : outputs[pooled], maps: outputs[maps] };
}

const visible = () => state.scene.networks.filter((network) => network.head === state.head);

function mapOf(network) {
  const key = [page.scenes.indexOf(state.scene), state.scene.networks.indexOf(network), state.object.index, state.degrees].join();
  if (!allMaps.has(key)) {
    const count = range.rows * range.columns;
    if (allMaps.size >= KEPT) allMaps.delete(allMaps.keys().next().value);
    allMaps.set(key, { values: new Float32Array(count).fill(NaN), answers: new Int16Array(count).fill(-1), done: 0 });
  }
  return allMaps.get(key);
}

// The answers of a map: how many positions are known, and how many of them share the commonest answer.
function tally(map) {
  const counts = new Map();
  for (const answer of map.answers) if (answer >= 0) counts.set(answer, (counts.get(answer) || 0) + 1);
  const [answer, kept] = [...counts].reduce((best, one) => (one[1] > best[1] ? one : best), [-1, 0]);
  return { answer, kept, done: map.done, of: map.answers.length };
}

let queue = ""; // what the maps are being computed for; an older queue stops when it sees another
const idle = window.requestIdleCallback || ((work) => setTimeout(() => work({ timeRemaining: () => SLICE }), 16));

// Fills the maps of the visible networks, a slice at a time, from where the object is when it starts outwards.
function fillMaps() {
  const mine = [page.scenes.indexOf(state.scene), state.head, state.object.index, state.degrees].join();
  if (queue === mine) return;
  queue = mine;
  const { columns, rows } = range;
  const order = Array.from({ length: rows * columns }, (_, index) => index);
  const distance = (index) => Math.hypot(Math.floor(index / columns) + range.top - state.y, (index % columns) + range.left - state.x);
  const distances = order.map(distance);
  order.sort((a, b) => distances[a] - distances[b]);
  const networks = visible().map((network) => [network, mapOf(network)]);
  let next = 0;
  let drawn = performance.now();
  const slice = () => {
    if (queue !== mine) return;
    const began = performance.now();
    while (next < order.length && performance.now() - began < SLICE) {
      const index = order[next++];
      const missing = networks.filter(([, map]) => map.answers[index] < 0);
      if (!missing.length) continue;
      const pixels = canvasAt(range.top + Math.floor(index / columns), range.left + (index % columns));
      for (const [network, map] of missing) {
        const found = answerOf(evaluate(network.program, pixels).at(-1).data);
        map.values[index] = against(found.probabilities, shownClass());
        map.answers[index] = found.answer;
        map.done++;
      }
    }
    const ended = next >= order.length;
    if (ended || performance.now() - drawn > 150) {
      drawn = performance.now();
      cards.forEach(drawPositions);
    }
    if (ended) queue = "";
    else idle(slice, { timeout: 200 });
  };
  idle(slice, { timeout: 200 });
}
