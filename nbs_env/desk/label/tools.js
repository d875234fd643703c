// Brush, eraser, line and polygon on the view's item; zoom and pan.
import { join } from "./mask.js";

const LARGEST = 1000; // pixels of the image

export class Tools {
  // `begins` is called before an item is painted on, `ends` after.
  constructor(view, begins, ends) {
    Object.assign(this, { view, begins, ends, stage: view.stage, tool: "brush", size: 12 });
    this.stroke = this.panning = this.pointer = null;
    this.corners = [];
    this.space = false;
    this.cursor = this.stage.querySelector("#cursor");
    this.sketch = this.stage.querySelector("#sketch");
    const on = (name, answer, options) =>
      this.stage.addEventListener(name, (event) => answer.call(this, event), options);
    on("pointerdown", this.press);
    on("pointermove", this.drag);
    on("pointerup", this.release);
    on("pointercancel", this.release);
    on("contextmenu", (event) => event.preventDefault());
    on("pointerleave", () => (this.cursor.style.visibility = "hidden"));
    on("wheel", this.wheel, { passive: false });
    on("drawn", () => {
      this.move();
      if (this.corners.length) this.draft(this.corners, 0);
    });
  }

  get item() {
    return this.view.item;
  }

  choose(name) {
    if (this.stroke) return;
    this.tool = name;
    this.cancel();
    this.move();
  }

  setSize(value) {
    this.size = Math.max(1, Math.min(LARGEST, Math.round(value)));
    this.move();
    this.stage.dispatchEvent(new Event("sized"));
  }

  // One step larger (1) or smaller (-1).
  resize(direction) {
    const factor = direction > 0 ? 1.15 : 1 / 1.15;
    this.setSize(this.size + direction * Math.max(1, Math.abs(Math.round(this.size * factor) - this.size)));
  }

  paint(from, to) {
    const { stroke } = this,
      box = this.item.mask.stroke(from, to, this.size, stroke.value);
    if (!box) return;
    stroke.box = join(stroke.box, box);
    this.view.drawMask(box);
  }

  press(event) {
    this.stage.focus();
    const place = this.view.place(event);
    if (event.button === 1 || this.space) this.panning = place.screen;
    else if (
      this.item &&
      !this.item.blocked &&
      !this.panning &&
      !this.stroke &&
      [0, 2].includes(event.button)
    ) {
      this.begins();
      const value = this.tool === "eraser" || event.button === 2 || event.altKey ? 0 : 1;
      if (event.shiftKey) return this.whole((mask) => mask.clear(Math.floor(place.x), Math.floor(place.y)));
      if (this.tool === "polygon") return this.corner(place, value);
      this.stroke = { value, start: place, last: place, box: null };
      this.item.begin();
      if (this.tool !== "line") this.paint(place, place);
    } else return;
    this.stage.setPointerCapture(event.pointerId);
    this.stage.classList.toggle("pan", Boolean(this.panning));
  }

  drag(event) {
    const { stroke, view } = this,
      place = view.place(event);
    this.move(event);
    if (this.panning) {
      view.pan(place.screen.x - this.panning.x, place.screen.y - this.panning.y);
      this.panning = place.screen;
    } else if (stroke && this.tool === "line") this.draft([stroke.start, place], this.size);
    else if (stroke)
      for (const each of [...(event.getCoalescedEvents?.() || []), event]) {
        const to = view.place(each);
        this.paint(stroke.last, to);
        stroke.last = to;
      }
    else if (this.corners.length) this.draft([...this.corners, place], 0);
  }

  release(event) {
    if (this.panning) this.panning = null;
    else if (this.stroke) {
      if (this.tool === "line") {
        this.paint(this.stroke.start, this.view.place(event));
        this.sketch.replaceChildren();
      }
      const { box } = this.stroke;
      this.stroke = null;
      this.end(box);
    }
    this.stage.classList.remove("pan");
  }

  end(box) {
    const first = this.item.state !== "saved"; // what was predicted becomes mine
    if (box) this.item.commit(box);
    else this.item.before = null;
    if (first) this.view.drawMask();
    this.ends();
  }

  corner(place, value) {
    const [first] = this.corners,
      { view } = this;
    const near = this.corners.length > 2 && Math.hypot(first.x - place.x, first.y - place.y) * view.scale;
    if (this.corners.length > 2 && near < 10 * view.ratio) return this.close(value);
    this.corners.push(place);
    this.draft(this.corners, 0);
  }

  // Close the polygon, and mark (1) or erase (0) what it holds.
  close(value) {
    const points = this.corners;
    this.cancel();
    if (points.length > 2) this.whole((mask) => mask.polygon(points, value));
  }

  // A change of the mask at once; `change` gives the box of it.
  whole(change) {
    this.item.begin();
    const box = change(this.item.mask);
    this.end(box);
    if (box) this.view.drawMask(box);
  }

  cancel() {
    this.corners = [];
    this.sketch.replaceChildren();
  }

  // Take the last corner away.
  shorten() {
    this.corners.pop();
    this.corners.length ? this.draft(this.corners, 0) : this.cancel();
  }

  // Show a line or a polygon that is not in the mask yet.
  draft(points, width) {
    const { scale, left, top, ratio } = this.view;
    const make = (name, values) => {
      const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(values)) shape.setAttribute(key, value);
      return shape;
    };
    const screen = points.map((p) => [(p.x * scale + left) / ratio, (p.y * scale + top) / ratio]);
    const line = make("polyline", { points: screen.map((p) => p.join()).join(" ") });
    if (width) line.style.strokeWidth = Math.max(1, (width * scale) / ratio);
    const [[cx, cy]] = screen;
    this.sketch.replaceChildren(line, ...(width ? [] : [make("circle", { cx, cy, r: 5 })]));
  }

  // Put the brush's outline where the pointer is.
  move(event = this.pointer) {
    this.pointer = event;
    if (!event) return;
    const box = this.stage.getBoundingClientRect(),
      { scale, ratio } = this.view;
    const wide = this.tool === "polygon" ? 5 : Math.max(3, (this.size * scale) / ratio);
    Object.assign(this.cursor.style, {
      width: `${wide}px`,
      height: `${wide}px`,
      visibility: "visible",
      left: `${event.clientX - box.left - wide / 2}px`,
      top: `${event.clientY - box.top - wide / 2}px`,
    });
  }

  wheel(event) {
    event.preventDefault();
    const turn = event.deltaY || event.deltaX,
      { screen } = this.view.place(event);
    if (event.shiftKey || event.altKey) this.resize(turn < 0 ? 1 : -1);
    else if (this.item) this.view.zoom(Math.exp(-turn * (event.ctrlKey ? 0.01 : 0.0015)), screen.x, screen.y);
  }
}
