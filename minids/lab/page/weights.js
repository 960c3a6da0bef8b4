"use strict";
// From the bytes in the page to numbers. As in DeepSeek-V3's release (section 3.3.2): matrices as E4M3 codes with one float32
// scale for every 128 × 128 of them; embedding, head, router and eh_proj as BF16; gains and biases as float32.

const TILE = 128;

/** The number of each E4M3 code: sign, 4 bits of exponent (bias 7), 3 bits of mantissa; no infinity, all ones is NaN. */
const E4M3 = Float32Array.from({ length: 256 }, (_, code) => {
  const exponent = (code >> 3) & 15;
  const mantissa = code & 7;
  if ((code & 127) === 127) return NaN;
  return (code & 128 ? -1 : 1) * (exponent ? (1 + mantissa / 8) * 2 ** (exponent - 7) : (mantissa / 8) * 2 ** -6);
});

function fromBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

const DECODE = {
  f32: (bytes, at, n) => new Float32Array(bytes.slice(at, at + 4 * n).buffer),
  bf16(bytes, at, n) {
    const bits = new Uint32Array(n);
    for (let i = 0; i < n; i++) bits[i] = (bytes[at + 2 * i] << 16) | (bytes[at + 2 * i + 1] << 24);
    return new Float32Array(bits.buffer); // the upper half of a float32
  },
  f16(bytes, at, n) {
    return Float32Array.from({ length: n }, (_, i) => {
      const bits = bytes[at + 2 * i] | (bytes[at + 2 * i + 1] << 8);
      const exponent = (bits >> 10) & 31;
      const mantissa = bits & 1023;
      return (bits & 0x8000 ? -1 : 1) * (exponent ? (1 + mantissa / 1024) * 2 ** (exponent - 15) : mantissa * 2 ** -24);
    });
  },
  fp8(bytes, at, n, shape, scalesAt) {
    const [rows, columns] = shape.slice(-2);
    const across = Math.ceil(columns / TILE);
    const each = Math.ceil(rows / TILE) * across;
    const scales = DECODE.f32(bytes, scalesAt, (n / (rows * columns)) * each);
    const data = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      const matrix = Math.floor(i / (rows * columns));
      const row = Math.floor(i / columns) % rows;
      const column = i % columns;
      data[i] = E4M3[bytes[at + i]] * scales[matrix * each + Math.floor(row / TILE) * across + Math.floor(column / TILE)];
    }
    return data;
  },
};

/** `tensors` as build.py lists them, `bytes` as it packed them → name → { shape, data }. */
function unpackWeights(tensors, bytes) {
  const w = {};
  for (const { name, shape, form, at, scales_at } of tensors) {
    const n = shape.reduce((a, b) => a * b, 1);
    w[name] = { shape, data: DECODE[form](bytes, at, n, shape, scales_at) };
  }
  return w;
}
