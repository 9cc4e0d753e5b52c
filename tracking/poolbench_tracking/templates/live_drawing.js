// Drawing: maps as canvases with one pixel per value, enlarged by the style sheet.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const palette = () =>
  dark.matches
    ? { low: [86, 160, 240], middle: [30, 33, 38], high: [245, 148, 66], ink: [236, 238, 241], none: [22, 24, 27] }
    : { low: [30, 96, 176], middle: [246, 246, 244], high: [214, 92, 10], ink: [24, 27, 31], none: [255, 255, 255] };
const mix = (a, b, t) => a.map((value, index) => value + (b[index] - value) * t);

// -1 .. 1 -> a colour; `least` keeps the sign of small values visible.
function diverging(value, colours, least = 0) {
  const amount = Math.min(Math.abs(value), 1);
  return mix(colours.middle, value < 0 ? colours.low : colours.high, amount ? least + (1 - least) * amount : 0);
}

function paint(canvas, rows, columns, colourAt) {
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) image.data.set([...colourAt(i), 255], 4 * i);
  context.putImageData(image, 0, 0);
}

function paintPixels(canvas, pixels) {
  const [channels, rows, columns] = pixels.shape;
  const size = rows * columns;
  paint(canvas, rows, columns, (i) => [0, 1, 2].map((c) => 255 * pixels.data[(channels === 3 ? c : 0) * size + i]));
}

// The scale of a map never shrinks while an object is shown, so that colours can be compared between positions.
function scaleOf(card, name, data) {
  const top = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  card.scales[name] = Math.max(card.scales[name] || 1e-12, top);
  return card.scales[name];
}

function tile(holder, index, label) {
  const box = holder.children[index] || holder.appendChild(make("figure", "tile"));
  if (!box.firstChild) box.append(make("canvas"), make("figcaption"));
  box.lastChild.textContent = label;
  return box.firstChild;
}

function drawTiles(holder, map, channels, labels, colour) {
  const [, rows, columns] = map.shape;
  channels.forEach((channel, index) => {
    const data = map.data.subarray(channel * rows * columns, (channel + 1) * rows * columns);
    paint(tile(holder, index, labels[index] || ""), rows, columns, (i) => colour(data[i]));
  });
  while (holder.children.length > channels.length) holder.lastChild.remove();
}

// The channels with the most energy where the object was first seen: the same ones at every position.
function strongest(card, name, map) {
  const size = map.shape[1] * map.shape[2];
  const energy = (channel) => map.data.subarray(channel * size, (channel + 1) * size).reduce((sum, value) => sum + value * value, 0);
  const order = () => Array.from({ length: map.shape[0] }, (_, channel) => channel).sort((a, b) => energy(b) - energy(a));
  card.channels[name] = card.channels[name] || order().slice(0, TILES).sort((a, b) => a - b);
  return card.channels[name];
}

function drawFeatures(card, holder, name, map) {
  const colours = palette();
  const scale = scaleOf(card, name, map.data);
  const colour = (value) => (value < 0 ? mix(colours.middle, colours.low, -value / scale) : mix(colours.middle, colours.ink, value / scale));
  drawTiles(holder, map, strongest(card, name, map), [], colour);
}

function drawClassMaps(card, result) {
  const { classes } = state.scene;
  const colours = palette();
  const scale = scaleOf(card, "classes", result.maps.data);
  const order = [...result.probabilities.keys()].sort((a, b) => result.probabilities[b] - result.probabilities[a]);
  const channels = result.maps.shape[0] === 1 ? [0] : order.slice(0, 2);
  const labels = result.maps.shape[0] === 1 ? [""] : channels.map((channel) => classes[channel]);
  drawTiles(card.maps, result.maps, channels, labels, (value) => diverging(value / scale, colours));
}

// The map of all positions lies in the middle of a square; the cursor marks the current one.
function drawPositions(card) {
  const map = mapOf(card.network);
  const side = Math.max(range.rows, range.columns);
  const [above, before] = [(side - range.rows) >> 1, (side - range.columns) >> 1];
  const colours = palette();
  // A move changes the cursor only.
  if (card.drawn.map !== map || card.drawn.done !== map.done || card.drawn.dark !== dark.matches) {
    card.drawn = { map, done: map.done, dark: dark.matches };
    paint(card.positions, side, side, (i) => {
      const [y, x] = [Math.floor(i / side) - above, (i % side) - before];
      const inside = y >= 0 && x >= 0 && y < range.rows && x < range.columns;
      const value = inside ? map.values[y * range.columns + x] : NaN;
      return Number.isNaN(value) ? colours.none : diverging(2 * value - 1, colours, 0.16);
    });
  }
  const { style } = card.cursor;
  style.left = `${(100 * (state.x - range.left + before)) / side}%`;
  style.top = `${(100 * (state.y - range.top + above)) / side}%`;
  style.width = style.height = `${100 / side}%`;
  const { answer, kept, done, of } = tally(map);
  const [same, known] = [kept.toLocaleString("en"), done.toLocaleString("en")];
  const where = done < of ? `${same} of ${known} positions so far` : kept < of ? `${same} of ${known} positions` : `all ${known} positions`;
  card.count.textContent = done ? `${state.scene.classes[answer]} at ${where}` : "";
}

function drawCard(card, result) {
  const { classes } = state.scene;
  const p = result.probabilities[result.answer];
  card.answer.textContent = classes[result.answer];
  card.share.textContent = `${(100 * p).toFixed(1)} %`;
  card.answer.style.setProperty("--answer", `rgb(${palette()[result.answer === shownClass() ? "high" : "low"]})`);
  card.bars.forEach((bar, index) => {
    bar.style.setProperty("--share", result.probabilities[index]);
    bar.classList.toggle("chosen", index === result.answer);
  });
  if (result.pooled) {
    const { phase } = result.pooled;
    drawFeatures(card, card.pooled, "pooled", result.pooled);
    card.pooledText.textContent = `first pool${phase === undefined ? "" : `, grid ${phase + 1}`}`;
  }
  if (card.network.program.classMaps) drawClassMaps(card, result);
  else drawFeatures(card, card.maps, "last", result.maps);
  drawPositions(card);
}
