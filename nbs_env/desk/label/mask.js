// A mask, one byte a pixel (0 or 1), row by row. Nothing is smoothed: the file holds what was seen.

export const join = (a, b) => {
  if (!a || !b) return a || b;
  const left = Math.min(a.left, b.left),
    top = Math.min(a.top, b.top);
  return {
    left,
    top,
    width: Math.max(a.left + a.width, b.left + b.width) - left,
    height: Math.max(a.top + a.height, b.top + b.height) - top,
  };
};

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height);
    this.marked = null; // a box that holds all that is marked, perhaps too large
  }

  get all() {
    return { left: 0, top: 0, width: this.width, height: this.height };
  }

  get empty() {
    return !this.marked || !this.data.includes(1);
  }

  clip(left, top, right, bottom) {
    left = Math.max(0, Math.floor(left));
    top = Math.max(0, Math.floor(top));
    const width = Math.min(this.width, Math.ceil(right)) - left;
    const height = Math.min(this.height, Math.ceil(bottom)) - top;
    return width > 0 && height > 0 ? { left, top, width, height } : null;
  }

  // Every pixel whose centre is within half of `size` of the line between the centres of two pixels.
  stroke(from, to, size, value) {
    const radius = size / 2,
      { width, data } = this;
    const x0 = Math.floor(from.x) + 0.5,
      y0 = Math.floor(from.y) + 0.5;
    const dx = Math.floor(to.x) + 0.5 - x0,
      dy = Math.floor(to.y) + 0.5 - y0,
      length = dx * dx + dy * dy;
    const box = this.clip(
      x0 + Math.min(dx, 0) - radius,
      y0 + Math.min(dy, 0) - radius,
      x0 + Math.max(dx, 0) + radius,
      y0 + Math.max(dy, 0) + radius,
    );
    if (!box) return null;
    for (let y = box.top; y < box.top + box.height; y++) {
      const py = y + 0.5 - y0;
      let begin = 0,
        end = 1; // the part of the line that is within reach of this row
      if (dy) {
        const a = (py - radius) / dy,
          b = (py + radius) / dy;
        begin = Math.max(0, Math.min(a, b));
        end = Math.min(1, Math.max(a, b));
      }
      const low = x0 + Math.min(begin * dx, end * dx) - radius - 1;
      const high = x0 + Math.max(begin * dx, end * dx) + radius + 1;
      const last = Math.min(box.left + box.width, Math.ceil(high));
      for (let x = Math.max(box.left, Math.floor(low)); x < last; x++) {
        const px = x + 0.5 - x0;
        const t = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
        const ex = px - t * dx,
          ey = py - t * dy;
        if (ex * ex + ey * ey <= radius * radius) data[y * width + x] = value;
      }
    }
    return this.changed(box, value);
  }

  // Every pixel whose centre is inside, by the even-odd rule.
  polygon(points, value) {
    const xs = points.map((p) => p.x),
      ys = points.map((p) => p.y);
    const box = this.clip(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
    if (!box) return null;
    for (let y = box.top; y < box.top + box.height; y++) {
      const crossings = [];
      points.forEach((a, i) => {
        const b = points[(i + 1) % points.length],
          py = y + 0.5;
        if (a.y <= py !== b.y <= py) crossings.push(a.x + ((py - a.y) / (b.y - a.y)) * (b.x - a.x));
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        const first = Math.max(box.left, Math.ceil(crossings[i] - 0.5));
        const last = Math.min(this.width, Math.ceil(crossings[i + 1] - 0.5));
        if (first < last) this.data.fill(value, y * this.width + first, y * this.width + last);
      }
    }
    return this.changed(box, value);
  }

  // Clear what is marked at a pixel and hangs together with it, corner to corner.
  clear(x, y) {
    const { width, height, data } = this,
      start = y * width + x;
    if (x < 0 || y < 0 || x >= width || y >= height || !data[start]) return null;
    const waiting = [start];
    let left = x,
      right = x,
      top = y,
      bottom = y;
    data[start] = 0;
    while (waiting.length) {
      const at = waiting.pop(),
        cx = at % width,
        cy = (at - cx) / width;
      [left, right, top, bottom] = [
        Math.min(left, cx),
        Math.max(right, cx),
        Math.min(top, cy),
        Math.max(bottom, cy),
      ];
      for (let ny = Math.max(0, cy - 1); ny <= Math.min(height - 1, cy + 1); ny++)
        for (let nx = Math.max(0, cx - 1); nx <= Math.min(width - 1, cx + 1); nx++)
          if (data[ny * width + nx]) {
            data[ny * width + nx] = 0;
            waiting.push(ny * width + nx);
          }
    }
    return this.clip(left, top, right + 1, bottom + 1);
  }

  changed(box, value) {
    if (value) this.marked = join(this.marked, box);
    return box;
  }

  cut(box, data = this.data) {
    const part = new Uint8Array(box.width * box.height);
    for (let y = 0; y < box.height; y++) {
      const start = (box.top + y) * this.width + box.left;
      part.set(data.subarray(start, start + box.width), y * box.width);
    }
    return part;
  }

  put(box, part) {
    for (let y = 0; y < box.height; y++) {
      const row = part.subarray(y * box.width, (y + 1) * box.width);
      this.data.set(row, (box.top + y) * this.width + box.left);
    }
    this.changed(box, 1);
  }

  // Eight pixels a byte, as the server takes and gives them.
  pack(box) {
    const part = this.cut(box),
      bits = new Uint8Array(Math.ceil(part.length / 8));
    for (let i = 0; i < part.length; i++) if (part[i]) bits[i >> 3] |= 128 >> (i & 7);
    return bits;
  }

  static unpack(width, height, bits) {
    const mask = new Mask(width, height),
      { data } = mask;
    let top = height,
      bottom = -1;
    for (let i = 0; i < bits.length; i++) {
      if (!bits[i]) continue;
      for (let bit = 0; bit < 8; bit++) if (bits[i] & (128 >> bit)) data[i * 8 + bit] = 1;
      top = Math.min(top, Math.floor((i * 8) / width));
      bottom = Math.floor((i * 8 + 7) / width);
    }
    if (bottom >= 0) mask.marked = mask.clip(0, top, width, bottom + 1);
    return mask;
  }
}
