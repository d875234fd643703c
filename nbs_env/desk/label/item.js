// One image on the page: its picture, its mask, what can be undone, and what is still to be saved.
import { Mask, join } from "./mask.js";
import { halve, heat } from "./view.js";

const KEPT = 2 ** 28; // bytes of strokes that can be undone
const PATIENCE = 2000; // ms until a save that failed is tried again

export async function ask(path, options) {
  let response;
  try {
    response = await fetch(`api/${path}`, options);
  } catch {
    throw new Error("The labelling command has ended: start it again, and open the address that it gives");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: response.statusText }));
  throw Object.assign(new Error(error), { status: response.status });
}

export class Item {
  constructor(number, changed) {
    Object.assign(this, { number, changed, other: null, round: 0 });
  }

  // What is on the server; an unreadable mask blocks painting, since it must not be lost.
  async load() {
    const [picture, mask] = await Promise.allSettled([
      ask(`images/${this.number}`),
      ask(`masks/${this.number}`),
    ]);
    if (picture.status === "rejected") throw picture.reason;
    this.levels ||= [await createImageBitmap(await picture.value.blob())];
    ({ width: this.width, height: this.height } = this.levels[0]);
    if (this.levels.length === 1) halve(this.levels);
    Object.assign(this, {
      done: [],
      undone: [],
      before: null,
      dirty: null,
      removal: false,
      problem: "",
      blocked: "",
    });
    if (mask.status === "rejected") {
      this.blocked = mask.reason.message;
      this.mask = new Mask(this.width, this.height);
      this.state = "none";
      return this;
    }
    const response = mask.value,
      size = `${this.width} ${this.height}`;
    this.version = response.headers.get("X-Version");
    if (response.headers.get("X-Size") !== size)
      this.blocked = `shown with ${size.replace(" ", "x")} pixels, stored with others; drop its EXIF data`;
    this.state = response.status === 200 ? "saved" : "none"; // or "predicted": shown, not saved
    const bits = new Uint8Array(await response.arrayBuffer());
    this.mask = this.blocked ? new Mask(this.width, this.height) : Mask.unpack(this.width, this.height, bits);
    return this;
  }

  // What the detector of a round says; where nothing is marked yet, as a mask to mend.
  predict(round) {
    if (!round || this.blocked) return Promise.resolve();
    if (this.asked !== round) {
      this.asked = round;
      this.coming = this.fetch(round).catch((error) => {
        this.asked = 0;
        throw error;
      });
    }
    return this.coming;
  }

  async fetch(round) {
    const response = await ask(`predictions/${this.number}/${round}/heat`);
    const picture = heat(await createImageBitmap(await response.blob()));
    const mask = await this.predictedBy(round);
    if (this.asked !== round) return;
    const score = response.headers.get("X-Score"),
      bad = response.headers.get("X-Bad") === "1";
    Object.assign(this, { heat: picture, round, score, bad });
    if (this.state === "saved" || this.before) return;
    this.mask = mask;
    Object.assign(this, { state: "predicted", done: [], undone: [] });
  }

  async predictedBy(round) {
    this.predicted ||= new Map();
    if (!this.predicted.has(round)) {
      const response = await ask(`predictions/${this.number}/${round}/mask`);
      this.predicted.set(round, new Uint8Array(await response.arrayBuffer()));
    }
    return Mask.unpack(this.width, this.height, this.predicted.get(round));
  }

  shown() {
    return this.other || this.mask;
  }

  colour() {
    return this.other || this.state === "predicted" ? "predicted" : "mine";
  }

  begin() {
    this.before = this.mask.data.slice();
  }

  // The end of a stroke that changed a box of the mask.
  commit(box) {
    const entry = {
      box,
      before: this.mask.cut(box, this.before),
      after: this.mask.cut(box),
      state: this.state,
    };
    this.before = null;
    this.undone = [];
    this.done.push(entry);
    let size = 0;
    const full = this.done.findLastIndex((each) => (size += 2 * each.after.length) > KEPT);
    this.done.splice(0, Math.min(full + 1, this.done.length - 1));
    this.touched(box);
  }

  // Put another mask in the place of this one, as one step.
  replace(mask) {
    this.begin();
    this.mask.put(this.mask.all, mask ? mask.data : new Uint8Array(this.mask.data.length));
    if (!mask) this.mask.marked = null;
    this.commit(this.mask.all);
  }

  // Keep a prediction as it is.
  keep() {
    this.begin();
    this.commit(this.mask.all);
  }

  step(from, to, side) {
    const entry = from.pop();
    if (!entry) return false;
    to.push(entry);
    this.mask.put(entry.box, entry[side]);
    if (side === "after" || entry.state === "saved") this.touched(entry.box);
    else this.forget(entry.state);
    return true;
  }

  undo() {
    return this.step(this.done, this.undone, "before");
  }

  redo() {
    return this.step(this.undone, this.done, "after");
  }

  forget(state = "none") {
    Object.assign(this, { state, dirty: null, removal: true });
    this.save();
  }

  touched(box) {
    this.dirty = this.state === "saved" ? join(this.dirty, box) : this.mask.all;
    Object.assign(this, { state: "saved", removal: false });
    this.save();
  }

  get unsaved() {
    return Boolean(this.saving || this.dirty || this.removal);
  }

  // One request after the other, each with the version that the one before gave.
  async save() {
    if (this.saving) return;
    this.saving = true;
    while (this.dirty || this.removal) {
      const { dirty, removal } = this,
        at = `masks/${this.number}?version=${this.version}`;
      Object.assign(this, { dirty: null, removal: false });
      this.changed(this);
      try {
        const box = dirty && new URLSearchParams(dirty);
        const response = await (removal
          ? ask(at, { method: "DELETE" })
          : ask(`${at}&${box}`, { method: "PUT", body: this.mask.pack(dirty) }));
        this.version = (await response.json()).version;
        this.problem = "";
      } catch (error) {
        this.problem = error.message;
        if (error.status === 409) {
          await this.load();
          this.problem = "This mask was changed elsewhere; it was loaded again, without the last stroke";
          break;
        }
        if (!this.removal) this.dirty = join(dirty, this.dirty);
        if (!this.dirty) this.removal = removal;
        if (error.status < 500) break; // tried again with the next stroke
        this.changed(this);
        await new Promise((resolve) => setTimeout(resolve, PATIENCE));
      }
    }
    this.saving = false;
    this.changed(this);
  }
}
