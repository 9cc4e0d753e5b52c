// Evaluates a program, a list of steps with weights, on one image. Maps are {shape: [c, h, w], data: Float32Array},
// vectors {shape: [n], data}. Values are stored in float32; sums are accumulated in doubles.
// poolbench.inspect.program writes the programs; the tests compare every kind of step with torch.
"use strict";

const zeros = (shape) => ({ shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)) });
const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

// Base64 of little-endian float32 -> Float32Array, on machines of either byte order.
function floatsOf(text) {
  const bytes = bytesOf(text);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

// Replaces the base64 text of all weights of a program by numbers, once; returns the program.
function decode(program) {
  for (const step of program.steps) {
    for (const name of ["weight", "bias", "scale", "shift", "row"]) {
      if (step[name] && typeof step[name].data === "string") step[name].data = floatsOf(step[name].data);
    }
  }
  return program;
}

// The index from 0 to n - 1 that position i of a padded axis takes its value from; -1 where it is filled.
function source(i, n, mode) {
  if (i >= 0 && i < n) return i;
  if (mode === "zeros") return -1;
  if (mode === "circular") return ((i % n) + n) % n;
  if (mode === "reflect" && n > 1) {
    const period = 2 * n - 2;
    return n - 1 - Math.abs((((i % period) + period) % period) - (n - 1));
  }
  return Math.min(Math.max(i, 0), n - 1);
}

// Pads by [left, right, top, bottom]; the two axes may have different modes.
function pad(x, [left, right, top, bottom], mode, rowMode = mode) {
  if (!(left || right || top || bottom)) return x;
  const [channels, height, width] = x.shape;
  const out = zeros([channels, height + top + bottom, width + left + right]);
  const columns = Int32Array.from({ length: out.shape[2] }, (_, i) => source(i - left, width, mode));
  let at = 0;
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < out.shape[1]; i++) {
      const row = source(i - top, height, rowMode);
      const start = (c * height + row) * width;
      for (let j = 0; j < columns.length; j++, at++) {
        if (row >= 0 && columns[j] >= 0) out.data[at] = x.data[start + columns[j]];
      }
    }
  }
  return out;
}

// The padding with which windows of stride x stride give ceil(n / stride) outputs.
function cover([, height, width], stride) {
  return [0, Math.ceil(width / stride) * stride - width, 0, Math.ceil(height / stride) * stride - height];
}

function conv(x, step) {
  const [outputs, inputs, kernelHeight, kernelWidth] = step.weight.shape;
  const [[down, across], [dilateDown, dilateAcross]] = [step.stride, step.dilation];
  const padded = pad(x, step.cover ? cover(x.shape, step.cover) : step.pad, step.mode);
  const [, height, width] = padded.shape;
  const rows = Math.floor((height - dilateDown * (kernelHeight - 1) - 1) / down) + 1;
  const columns = Math.floor((width - dilateAcross * (kernelWidth - 1) - 1) / across) + 1;
  const out = zeros([outputs, rows, columns]);
  const sums = new Float64Array(rows * columns);
  let weight = 0;
  for (let o = 0; o < outputs; o++) {
    sums.fill(step.bias ? step.bias.data[o] : 0);
    const first = Math.floor(o / (outputs / step.groups)) * inputs;
    for (let c = first; c < first + inputs; c++) {
      for (let i = 0; i < kernelHeight; i++) {
        for (let j = 0; j < kernelWidth; j++) {
          const w = step.weight.data[weight++];
          let at = 0;
          for (let y = 0; y < rows; y++) {
            let from = (c * height + y * down + i * dilateDown) * width + j * dilateAcross;
            for (let k = 0; k < columns; k++, from += across) sums[at++] += w * padded.data[from];
          }
        }
      }
    }
    out.data.set(sums, o * rows * columns);
  }
  return out;
}

// Maximum or mean of windows. Mode "zeros" leaves out what lies outside the map.
function windows(x, step) {
  const { size, stride, mode } = step;
  const widths = step.pad || cover(x.shape, stride);
  const inner = mode === "zeros" ? x : pad(x, widths, mode);
  const [left, , top] = mode === "zeros" ? widths : [0, 0, 0];
  const [channels, height, width] = inner.shape;
  const rows = Math.floor((x.shape[1] + widths[2] + widths[3] - size) / stride) + 1;
  const columns = Math.floor((x.shape[2] + widths[0] + widths[1] - size) / stride) + 1;
  const out = zeros([channels, rows, columns]);
  let at = 0;
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < rows; y++) {
      for (let k = 0; k < columns; k++) {
        let [highest, sum, count] = [-Infinity, 0, 0];
        for (let i = Math.max(y * stride - top, 0); i < Math.min(y * stride - top + size, height); i++) {
          for (let j = Math.max(k * stride - left, 0); j < Math.min(k * stride - left + size, width); j++) {
            const value = inner.data[(c * height + i) * width + j];
            if (value > highest) highest = value;
            sum += value;
            count++;
          }
        }
        out.data[at++] = step.kind === "max" ? highest : sum / count;
      }
    }
  }
  return out;
}

// A low-pass filter, the outer product of a row with itself. It reflects where the network pads with zeros, and
// repeats the last pixel of a side that is too small to reflect.
function blur(x, step) {
  const [channels, height, width] = x.shape;
  const size = step.row.data.length;
  const reach = (size - 1) / 2;
  const modeOf = (n) => (step.mode !== "zeros" ? step.mode : n > reach ? "reflect" : "replicate");
  const padded = pad(x, [reach, reach, reach, reach], modeOf(width), modeOf(height));
  const [rows, columns] = [Math.ceil(height / step.stride), Math.ceil(width / step.stride)];
  const out = zeros([channels, rows, columns]);
  let at = 0;
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < rows; y++) {
      for (let k = 0; k < columns; k++) {
        let sum = 0;
        for (let i = 0; i < size; i++) {
          const start = (c * padded.shape[1] + y * step.stride + i) * padded.shape[2] + k * step.stride;
          for (let j = 0; j < size; j++) sum += step.row.data[i] * step.row.data[j] * padded.data[start + j];
        }
        out.data[at++] = sum;
      }
    }
  }
  return out;
}

// Every stride-th pixel, from row i and column j on.
function grid(x, stride, i, j) {
  const [channels, height, width] = x.shape;
  const out = zeros([channels, Math.ceil((height - i) / stride), Math.ceil((width - j) / stride)]);
  let at = 0;
  for (let c = 0; c < channels; c++) {
    for (let y = i; y < height; y += stride) {
      for (let k = j; k < width; k += stride) out.data[at++] = x.data[(c * height + y) * width + k];
    }
  }
  return out;
}

// A mask of the scores that equal the largest, up to a relative tolerance: sums of a rolled map differ in last bits.
function largest(scores) {
  const least = Math.max(...scores) - 1e-5 * Math.max(...scores.map(Math.abs));
  return scores.map((score) => score >= least);
}

// Of the stride^2 interleaved grids, the one with the largest norm; content decides between equal norms.
function polyphase(x, step) {
  const { stride } = step;
  if (x.shape[1] % stride || x.shape[2] % stride) throw new Error(`${step.path}: ${stride} does not divide the sides`);
  const grids = Array.from({ length: stride ** 2 }, (_, p) => grid(x, stride, Math.floor(p / stride), p % stride));
  const tied = largest(grids.map(({ data }) => data.reduce((sum, value) => sum + Math.fround(value * value), 0)));
  let phase = tied.indexOf(true);
  if (tied.filter(Boolean).length > 1) {
    phase = largest(fingerprints(x, stride).map((value, p) => (tied[p] ? value : 0))).indexOf(true);
  }
  return { ...grids[phase], phase };
}

// Fixed numbers without period or symmetry at these integers.
const wave = (index, start = 0.61) => Math.SQRT2 * Math.cos(start + 1.93 * index + 2.39 * index * index);

// A number per grid that a roll of the map does not change, as poolbench.pooling.polyphase defines it.
function fingerprints(x, stride) {
  const [channels, height, width] = x.shape;
  const z = new Float64Array(height * width);
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < z.length; i++) z[i] += wave(c) * x.data[c * z.length + i];
  }
  const mean = z.reduce((a, b) => a + b) / z.length;
  const centred = z.map((value) => value - mean);
  const norm = Math.max(Math.sqrt(centred.reduce((sum, value) => sum + value * value, 0)), Number.MIN_VALUE);
  const down = Float64Array.from({ length: height }, (_, i) => wave(i, 0.61));
  const across = Float64Array.from({ length: width }, (_, i) => wave(i, 2.17));
  const partial = new Float64Array(z.length);
  for (let i = 0; i < height; i++) {
    for (let k = 0; k < height; k++) {
      const factor = down[(k - i + height) % height] / norm;
      for (let j = 0; j < width; j++) partial[i * width + j] += factor * centred[k * width + j];
    }
  }
  const sums = new Array(stride ** 2).fill(0);
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < width; j++) {
      let view = 0;
      for (let k = 0; k < width; k++) view += across[(k - j + width) % width] * partial[i * width + k];
      sums[(i % stride) * stride + (j % stride)] += Math.exp(view);
    }
  }
  return sums.map((sum) => (sum * stride ** 2) / z.length);
}

function affine(x, step) {
  const block = x.data.length / step.scale.data.length;
  return { ...x, data: x.data.map((value, i) => value * step.scale.data[Math.floor(i / block)] + step.shift.data[Math.floor(i / block)]) };
}

const ACTIVATIONS = {
  relu: (value) => Math.max(value, 0),
  elu: (value, step) => (value > 0 ? value : step.alpha * Math.expm1(value)),
  sigmoid: (value) => 1 / (1 + Math.exp(-value)),
  scale: (value, step) => value * step.factor,
};

function crop(x, { size: [rows, columns] }) {
  const out = zeros([x.shape[0], rows, columns]);
  for (let c = 0, at = 0; c < x.shape[0]; c++) {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) out.data[at++] = x.data[(c * x.shape[1] + i) * x.shape[2] + j];
    }
  }
  return out;
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const maximum = (values) => values.reduce((a, b) => (b > a ? b : a), -Infinity);

// The global pools: all positions of a channel -> a number.
const HEADS = {
  avg: mean,
  max: maximum,
  avgmax: (values) => (mean(values) + maximum(values)) / 2,
  l2: (values) => Math.sqrt(mean(values.map((value) => value * value))),
  gem(values, { p, eps }) {
    const clamped = values.map((value) => Math.max(value, eps));
    const top = maximum(clamped);
    return mean(clamped.map((value) => (value / top) ** p)) ** (1 / p) * top;
  },
  lse(values, { r }) {
    const top = maximum(values);
    return top + Math.log1p(mean(values.map((value) => Math.expm1(r * (value - top))))) / r;
  },
  top_k: (values, { k, share }) => mean(values.sort().slice(-(k === null ? Math.ceil(share * values.length - 1e-9) : k))),
  median(values) {
    const ordered = values.sort();
    return (ordered[Math.floor((values.length - 1) / 2)] + ordered[Math.floor(values.length / 2)]) / 2;
  },
  softmax_weighted(values) {
    const top = maximum(values);
    const weights = values.map((value) => Math.exp(value - top));
    return weights.reduce((sum, weight, i) => sum + weight * values[i], 0) / weights.reduce((a, b) => a + b);
  },
};

function head(x, step) {
  if (step.function === "flatten") return { shape: [x.data.length], data: x.data };
  const size = x.shape[1] * x.shape[2];
  // Copies in doubles: some heads sort them.
  const channels = Array.from({ length: x.shape[0] }, (_, c) => Float64Array.from(x.data.subarray(c * size, (c + 1) * size)));
  const names = step.function === "catavgmax" ? ["avg", "max"] : [step.function];
  const values = names.flatMap((name) => channels.map((channel) => HEADS[name](channel, step)));
  return { shape: [values.length], data: Float32Array.from(values) };
}

function linear(x, step) {
  const [outputs, inputs] = step.weight.shape;
  const out = zeros([outputs]);
  for (let o = 0; o < outputs; o++) {
    let sum = step.bias ? step.bias.data[o] : 0;
    for (let i = 0; i < inputs; i++) sum += step.weight.data[o * inputs + i] * x.data[i];
    out.data[o] = sum;
  }
  return out;
}

const STEPS = {
  conv,
  affine,
  crop,
  head,
  linear,
  blur,
  polyphase,
  max: windows,
  mean: windows,
  decimate: (x, step) => grid(x, step.stride, 0, 0),
  activation: (x, step) => ({ ...x, data: x.data.map((value) => ACTIVATIONS[step.function](value, step)) }),
};

// Returns the output of every step of a decoded program for pixels {shape: [c, h, w], data}; the last are the logits.
function evaluate(program, pixels) {
  const outputs = [];
  let x = pixels;
  for (const step of program.steps) {
    x = STEPS[step.kind](x, step);
    outputs.push(x);
  }
  return outputs;
}

// Rotates {shape: [c, h, w], data} counter-clockwise about its centre, bilinear, zeros outside: geometry.rotate.
function rotate(x, degrees) {
  const [channels, height, width] = x.shape;
  const [cos, sin] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
  const out = zeros(x.shape);
  const [middleY, middleX] = [(height - 1) / 2, (width - 1) / 2];
  let at = 0;
  for (let c = 0; c < channels; c++) {
    const value = (i, j) => (i < 0 || j < 0 || i >= height || j >= width ? 0 : x.data[(c * height + i) * width + j]);
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++, at++) {
        const fromX = middleX + cos * (j - middleX) - sin * (i - middleY);
        const fromY = middleY + sin * (j - middleX) + cos * (i - middleY);
        const [top, left] = [Math.floor(fromY), Math.floor(fromX)];
        const [down, right] = [fromY - top, fromX - left];
        const above = (1 - right) * value(top, left) + right * value(top, left + 1);
        const below = (1 - right) * value(top + 1, left) + right * value(top + 1, left + 1);
        out.data[at] = (1 - down) * above + down * below;
      }
    }
  }
  return out;
}
