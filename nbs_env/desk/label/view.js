// Image, prediction and mask on three canvases of the window's size, all under one zoom and pan.
// What is drawn depends on the window, not on the image: 12 megapixels cost no more than one.

const PAINT = {
  mine: [255, 64, 224], // magenta and cyan: seldom met in images of surfaces
  predicted: [0, 229, 255],
};
const FILL = 70; // opacity of what is marked, of 255; its outline is opaque
const HEAT = [
  [0, 0, 4],
  [87, 16, 110],
  [188, 55, 84],
  [249, 142, 9],
  [252, 255, 164],
]; // inferno

const word = ([r, g, b], alpha) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;

// Probabilities (a grey bitmap) as colours, the more opaque the likelier.
export function heat(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height),
    context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const image = context.getImageData(0, 0, bitmap.width, bitmap.height),
    { data } = image;
  for (let i = 0; i < data.length; i += 4) {
    const place = (data[i] / 255) * (HEAT.length - 1),
      low = Math.min(HEAT.length - 2, Math.floor(place));
    data[i + 3] = 190 * (data[i] / 255) ** 2;
    for (let c = 2; c >= 0; c--)
      data[i + c] = HEAT[low][c] + (place - low) * (HEAT[low + 1][c] - HEAT[low][c]);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export class View {
  constructor(stage) {
    this.stage = stage;
    this.layers = ["image", "heat", "mask"].map((name) => stage.querySelector(`canvas.${name}`));
    [this.image, this.heat, this.mask] = this.layers.map((canvas) => canvas.getContext("2d"));
    this.item = null;
    this.scale = 1; // pixels of the screen for one of the image
    this.left = this.top = 0; // of the image, in pixels of the screen
    this.showHeat = false;
    this.filter = "none"; // contrast: of the drawing, since a style would be computed at every stroke
    new ResizeObserver(() => this.resize()).observe(stage);
    this.resize();
  }

  get ratio() {
    return window.devicePixelRatio || 1;
  }

  resize() {
    this.width = Math.max(1, Math.round(this.stage.clientWidth * this.ratio));
    this.height = Math.max(1, Math.round(this.stage.clientHeight * this.ratio));
    for (const canvas of this.layers) Object.assign(canvas, { width: this.width, height: this.height });
    if (this.item) this.fitted ? this.fit() : this.draw();
  }

  show(item) {
    const same = this.item && this.item.width === item.width && this.item.height === item.height;
    this.item = item;
    same ? this.draw() : this.fit(); // a series is looked at in one place
  }

  fit() {
    const { width, height } = this.item;
    this.scale = Math.min(this.width / width, this.height / height) * 0.98;
    this.left = (this.width - width * this.scale) / 2;
    this.top = (this.height - height * this.scale) / 2;
    this.fitted = true;
    this.draw();
  }

  // Zoom so that what is under (x, y) on the screen stays there.
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.max(0.02, Math.min(64, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.moved();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.moved();
  }

  moved() {
    this.fitted = false;
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => this.draw());
  }

  // Where a pointer is in the image.
  place(event) {
    const box = this.stage.getBoundingClientRect();
    const x = (event.clientX - box.left) * this.ratio,
      y = (event.clientY - box.top) * this.ratio;
    return { x: (x - this.left) / this.scale, y: (y - this.top) / this.scale, screen: { x, y } };
  }

  draw() {
    cancelAnimationFrame(this.pending);
    this.pending = 0;
    if (!this.item) return;
    const { item, image } = this;
    // Of the image and its halves, quarters ... the smallest that is still sharp.
    const level =
      item.levels.findLast((each) => each.width >= item.width * Math.min(1, this.scale)) || item.levels[0];
    image.clearRect(0, 0, this.width, this.height);
    Object.assign(image, { imageSmoothingEnabled: this.scale < 3, filter: this.filter });
    this.cover(image, level);
    const hot = this.showHeat && item.heat;
    this.heat.canvas.hidden = !hot; // what is not there need not be composed at every stroke
    this.heat.clearRect(0, 0, this.width, this.height);
    if (hot) this.cover(this.heat, item.heat);
    this.drawMask();
    this.stage.dispatchEvent(new Event("drawn"));
  }

  // Draw a picture over the whole image's place, and only the part that is seen.
  cover(context, picture) {
    const { scale, left, top, item } = this,
      kx = picture.width / item.width,
      ky = picture.height / item.height;
    const x = Math.max(0, Math.floor(-left / scale)),
      y = Math.max(0, Math.floor(-top / scale));
    const right = Math.min(item.width, Math.ceil((this.width - left) / scale));
    const bottom = Math.min(item.height, Math.ceil((this.height - top) / scale));
    if (right <= x || bottom <= y) return;
    context.drawImage(
      picture,
      x * kx,
      y * ky,
      (right - x) * kx,
      (bottom - y) * ky,
      left + x * scale,
      top + y * scale,
      (right - x) * scale,
      (bottom - y) * scale,
    );
  }

  // Draw the part of the mask in a box of the image, or all of it. Zoomed out, a pixel of the screen is drawn
  // where any of its pixels is: thin cracks stay visible.
  drawMask(box = null) {
    const { item, scale, left, top } = this,
      mask = item.shown();
    const area = box || mask.all;
    if (!box) this.mask.clearRect(0, 0, this.width, this.height);
    const x0 = Math.max(0, Math.floor(area.left * scale + left) - 2);
    const y0 = Math.max(0, Math.floor(area.top * scale + top) - 2);
    const width = Math.min(this.width, Math.ceil((area.left + area.width) * scale + left) + 2) - x0;
    const height = Math.min(this.height, Math.ceil((area.top + area.height) * scale + top) + 2) - y0;
    if (width <= 0 || height <= 0) return;
    this.mask.clearRect(x0, y0, width, height);
    if (!mask.marked) return;
    const inner = width + 2,
      on = new Uint8Array(inner * (height + 2));
    const begins = new Int32Array(inner),
      ends = new Int32Array(inner),
      found = mask.marked;
    const span = (place, offset, low, high) => {
      const a = Math.floor((place - offset) / scale),
        b = Math.floor((place + 1 - offset) / scale);
      return [Math.max(low, a), Math.min(high, Math.max(a + 1, b))];
    };
    for (let i = 0; i < inner; i++)
      [begins[i], ends[i]] = span(x0 - 1 + i, left, found.left, found.left + found.width);
    for (let j = 0; j < height + 2; j++) {
      const [first, last] = span(y0 - 1 + j, top, found.top, found.top + found.height);
      for (let y = first; y < last; y++) {
        const row = y * mask.width;
        for (let i = 0; i < inner; i++)
          for (let x = begins[i]; x < ends[i]; x++)
            if (mask.data[row + x]) {
              on[j * inner + i] = 1;
              break;
            }
      }
    }
    const picture = new ImageData(width, height),
      words = new Uint32Array(picture.data.buffer);
    const colour = PAINT[item.colour()],
      fill = word(colour, FILL),
      edge = word(colour, 255);
    for (let j = 0, k = 0; j < height; j++)
      for (let i = 0; i < width; i++, k++) {
        const at = (j + 1) * inner + i + 1;
        if (on[at]) words[k] = on[at - 1] && on[at + 1] && on[at - inner] && on[at + inner] ? fill : edge;
      }
    this.mask.putImageData(picture, x0, y0);
  }
}

// The picture and its halves, quarters ... down to about 500 pixels; `levels` fills up as they are made.
export async function halve(levels) {
  for (let last = levels[0]; last.width > 1000; levels.push(last)) {
    const size = { resizeWidth: Math.ceil(last.width / 2), resizeHeight: Math.ceil(last.height / 2) };
    last = await createImageBitmap(last, { ...size, resizeQuality: "medium" });
  }
}

// Gain and offset that spread the image's own range over black to white, as CSS filters.
export function stretch(picture) {
  const canvas = new OffscreenCanvas(128, 128),
    context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, 128, 128);
  const { data } = context.getImageData(0, 0, 128, 128),
    levels = [];
  for (let i = 0; i < data.length; i += 4) levels.push((data[i] + data[i + 1] + data[i + 2]) / 3);
  levels.sort((a, b) => a - b);
  const low = levels[Math.floor(levels.length * 0.005)] / 255;
  const high = Math.max(levels[Math.floor(levels.length * 0.995)] / 255, low + 0.02);
  const gain = 1 / (high - low),
    contrast = 1 + 2 * low * gain;
  return { brightness: gain / contrast, contrast };
}
