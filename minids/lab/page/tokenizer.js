"use strict";
// Text to token ids and back, as the checkpoint's tokenizer.json says: single bytes, single characters, or byte-pair encoding.
// All of them spell bytes with the characters of GPT-2's byte-level vocabulary (Radford et al. 2019).

/** The character that writes each byte: printable Latin-1 stands for itself, the other 68 take those from U+0100 on. */
const CHARACTER_OF_BYTE = (() => {
  let stand_in = 0x100;
  const printable = (b) => (b > 32 && b < 127) || (b > 160 && b !== 173);
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : stand_in++));
})();
const BYTE_OF_CHARACTER = new Map(CHARACTER_OF_BYTE.map((character, byte) => [character, byte]));

// White space as Unicode and Rust know it; JavaScript's own \s has U+FEFF besides, and lacks U+0085.
const SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

/** A pattern of tokenizer.json as a JavaScript one. */
function asPattern(source) {
  let inside = false;
  let out = "";
  for (let i = 0; i < source.length; i++) {
    const two = source.slice(i, i + 2);
    if (two === "\\s" || (two === "\\S" && !inside)) {
      out += inside ? SPACE : `[${two === "\\S" ? "^" : ""}${SPACE}]`;
      i++;
    } else if (two[0] === "\\") {
      out += two;
      i++;
    } else {
      if (two[0] === "[") inside = true;
      if (two[0] === "]") inside = false;
      out += two[0];
    }
  }
  return new RegExp(out, "gu");
}

class Tokenizer {
  /** `described` by build.py: pieces (id → spelling, null for none), specials (id → name), cuts, merges, whole_words, bos, eos. */
  constructor(described) {
    this.pieces = described.pieces.map((piece) => piece && Uint8Array.from(piece, (ch) => BYTE_OF_CHARACTER.get(ch)));
    this.specials = described.specials;
    this.bos = described.bos;
    this.eos = described.eos;
    this.wholeWords = described.whole_words;
    this.cuts = described.cuts.map(asPattern);
    this.ids = new Map(described.pieces.map((piece, id) => [piece, id]).filter(([piece]) => piece));
    this.ranks = new Map(described.merges.map((pair, rank) => [pair, rank])); // "left right", the earlier the stronger
  }

  /** Ids of a text, without begin or end token. What has no token is left out. */
  encode(text) {
    let parts = [text];
    for (const cut of this.cuts) parts = parts.flatMap((part) => cutBy(part, cut));
    return parts.flatMap((part) => this.encodeWord(part));
  }

  encodeWord(word) {
    const spelled = Array.from(new TextEncoder().encode(word), (byte) => CHARACTER_OF_BYTE[byte]);
    const whole = spelled.join("");
    if (this.wholeWords && this.ids.has(whole)) return [this.ids.get(whole)];
    for (;;) {
      // the strongest pair that is there is joined, wherever it is, until there is none
      let best = Infinity;
      for (let i = 0; i + 1 < spelled.length; i++)
        best = Math.min(best, this.ranks.get(`${spelled[i]} ${spelled[i + 1]}`) ?? Infinity);
      if (best === Infinity) break;
      for (let i = 0; i + 1 < spelled.length; i++) {
        if (this.ranks.get(`${spelled[i]} ${spelled[i + 1]}`) === best) spelled.splice(i, 2, spelled[i] + spelled[i + 1]);
      }
    }
    return spelled.map((piece) => this.ids.get(piece)).filter((id) => id !== undefined);
  }

  /** The text that each of some ids adds; a character of several tokens is added by its last one. */
  decodeEach(ids) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const texts = ids.map((id) => (this.pieces[id] ? decoder.decode(this.pieces[id], { stream: true }) : ""));
    const rest = decoder.decode();
    if (rest && texts.length) texts[texts.length - 1] += rest;
    return texts;
  }

  decode(ids) {
    return this.decodeEach(ids).join("");
  }

  /** One token for people: white space and halves of characters become visible. */
  name(id) {
    if (this.specials[id]) return this.specials[id];
    const piece = this.pieces[id];
    if (!piece) return `⟨${id}⟩`;
    const text = new TextDecoder().decode(piece);
    if (text.includes("\ufffd")) return Array.from(piece, (b) => "‹" + b.toString(16).padStart(2, "0") + "›").join("");
    return text
      .replace(/ /g, "␣")
      .replace(/\n/g, "⏎")
      .replace(/\t/g, "⇥")
      .replace(/[\0-\x1f\x7f]/g, (ch) => String.fromCodePoint(ch === "\x7f" ? 0x2421 : 0x2400 + ch.charCodeAt(0)));
  }

  /** Bytes of text that a token stands for. */
  byteCount(id) {
    return this.pieces[id] ? this.pieces[id].length : 0;
  }
}

/** Every match of the pattern and everything between two matches, each a part of its own. */
function cutBy(text, pattern) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (!match[0]) continue;
    if (match.index > end) parts.push(text.slice(end, match.index));
    parts.push(match[0]);
    end = match.index + match[0].length;
  }
  if (end < text.length) parts.push(text.slice(end));
  return parts;
}
