"use strict";
// The page's engine without a page: reads requests from standard input, runs them, writes what it found to standard output.

const fs = require("fs");
const { source, requests } = JSON.parse(fs.readFileSync(0, "utf8"));
const engine = new Function(`${source}
  return { unpackWeights, fromBase64, Sequence, Tokenizer, follow, ropeFrequencies, mistaken, E4M3 };`)();

const weightsOf = ({ tensors, base64 }) => engine.unpackWeights(tensors, engine.fromBase64(base64));

const ANSWERS = {
  /** Every token's logits and experts; with `depth`, the logits of MTP module 1 … depth as well. */
  read({ model, config, tokens, depth }) {
    const sequence = new engine.Sequence(weightsOf(model), config),
      logits = [],
      experts = [];
    const mtp = Array.from({ length: depth }, () => []);
    tokens.forEach((token, t) => {
      if (t > 0 && depth) {
        // modules one after the other, shown the text as it is
        sequence.draft(token, depth, (values, guess) => {
          if (t + guess < tokens.length) mtp[guess - 1].push({ at: t - 1, values: [...values] });
          return tokens[t + guess] ?? 0;
        });
      }
      experts.push(sequence.read(token).map(({ routing }) => routing && routing.chosen));
      logits.push([...sequence.logits]);
    });
    return { logits, experts, mtp };
  },

  /** A text continued, in the pieces that `pieces` says, each as long as given. */
  write({ model, config, pieces, settings }) {
    const sequence = new engine.Sequence(weightsOf(model), config),
      entries = new Map();
    let text = [];
    pieces.forEach((piece, i) => {
      text = text.concat(piece);
      const most = i === pieces.length - 1 ? settings.most : text.length;
      for (const entry of engine.follow(sequence, text, { ...settings, most })) entries.set(entry.position, entry);
    });
    const all = [...entries.values()];
    return {
      ids: all.map(({ id }) => id),
      passes: Math.max(...all.map(({ pass }) => pass)),
      guesses: all.map(({ guess }) => guess),
    };
  },

  tokenize({ described, texts }) {
    const tokenizer = new engine.Tokenizer(described);
    return texts.map((text) => ({ ids: tokenizer.encode(text), back: tokenizer.decode(tokenizer.encode(text)) }));
  },

  frequencies: ({ config }) => [...engine.ropeFrequencies(config)],

  e4m3: () => [...engine.E4M3].map((value) => (Number.isNaN(value) ? null : value)),

  /** Tokens a second, reading and writing. */
  speed({ model, config, tokens, most }) {
    const sequence = new engine.Sequence(weightsOf(model), config),
      began = performance.now();
    for (const _ of engine.follow(sequence, tokens, { temperature: 0, seed: 0, guesses: 0, most, stop: null })); // eslint-disable-line
    return most / ((performance.now() - began) / 1000);
  },
};

process.stdout.write(JSON.stringify(requests.map((request) => ANSWERS[request.what](request))));
