"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && key !== "style") made[key] = value; else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const number = (x) => x === null || !Number.isFinite(x) ? "\u2013" : x.toFixed(3);
const short = (x) => Math.abs(x) >= 1000 ? String(Math.round(x)) : String(+x.toPrecision(3));
const share = (part, whole) => whole ? `${(100 * part / whole).toFixed(part === whole || !part ? 0 : 1)} %` : "\u2013";
const ratio = (part, whole) => whole ? part / whole : 0;
const harmonic = (p, r) => p + r ? 2 * p * r / (p + r) : 0;

// What is chosen; null: as the run has it.

const images = content.images, curve = content.curve;
const known = images.filter((image) => image.defective !== null);
const defective = known.filter((image) => image.defective);
const limits = [...new Set(images.map((image) => image.score))].sort((a, b) => a - b).concat(Infinity);
const chosen = {pixel: null, image: null};
const method = content.methods[content.masks] || null;
const crf = content.masks.startsWith("nbs");

function isBad(image) {
  if (chosen.image !== null) return image.score >= limits[chosen.image];
  if (chosen.pixel === null) return image.bad;
  if (content.image_threshold !== null) return image.score >= content.image_threshold;
  return image.highest >= content.thresholds[chosen.pixel];
}

function pixelFigures(place) {
  if (place === null && Number.isFinite(method?.pixel_f1)) {
    return [method.pixel_precision, method.pixel_recall, method.pixel_f1];
  }
  if (!curve?.anomalous) return null;
  const true_ = curve.true[place ?? content.default], false_ = curve.false[place ?? content.default];
  const precision = ratio(true_, true_ + false_), recall = ratio(true_, curve.anomalous);
  return [precision, recall, harmonic(precision, recall)];
}

function imageFigures() {
  if (!defective.length) return null;
  const found = defective.filter(isBad).length, called = known.filter(isBad).length;
  const precision = ratio(found, called), recall = ratio(found, defective.length);
  return [precision, recall, harmonic(precision, recall)];
}

function verdict(image) {
  const bad = isBad(image);
  const wrong = image.defective !== null && image.defective !== bad;
  return {bad, wrong, tag: wrong ? (bad ? "false alarm" : "missed") : ""};
}
