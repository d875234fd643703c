// Pictures: one image large, its layers drawn by the browser.

const decoded = new Map();

function pixels(address) {  // one byte a pixel of a grey picture
  if (!decoded.has(address)) {
    decoded.set(address, (async () => {
      const picture = new Image();
      picture.src = address;
      await picture.decode();
      const canvas = el("canvas", {width: picture.naturalWidth, height: picture.naturalHeight});
      const context = canvas.getContext("2d", {willReadFrequently: true});
      context.drawImage(picture, 0, 0);
      const all = context.getImageData(0, 0, canvas.width, canvas.height).data;
      return {width: canvas.width, height: canvas.height, values: all.filter((_, i) => i % 4 === 0)};
    })());
  }
  return decoded.get(address);
}

const COLOURS = {mask: [0, 229, 255], truth: [255, 64, 224]};

function paint(target, {width, height, values}, colour) {  // a light fill and a full edge
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[y * width + x];
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    if (!inside(x, y)) continue;
    const edge = !(inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1));
    const i = 4 * (y * width + x), a = edge ? 1 : .3, below = target[i + 3] / 255;
    for (let c = 0; c < 3; c++) target[i + c] = colour[c] * a + target[i + c] * (1 - a) * below;
    target[i + 3] = 255 * (a + (1 - a) * below);
  }
}

async function draw(canvas, image, layers) {
  const round = canvas.round = (canvas.round || 0) + 1;
  const probability = image.probability && await pixels(image.probability);
  const mask = image.mask && await pixels(image.mask), truth = image.truth && await pixels(image.truth);
  if (canvas.round !== round) return;  // asked anew in between
  const any = probability || mask || truth;
  if (!any) return;
  const {width, height} = any, picture = new ImageData(width, height);
  if (layers.probability && probability) probability.values.forEach((level, i) => {
    picture.data.set([...content.heat[level], 255], 4 * i);
  });
  const asRun = chosen.pixel === null || !probability;
  const marked = asRun ? mask : {width, height, values: probability.values.map((level) => level > chosen.pixel)};
  if (layers.mask && marked) paint(picture.data, marked, COLOURS.mask);
  if (layers.truth && truth) paint(picture.data, truth, COLOURS.truth);
  Object.assign(canvas, {width, height});
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

const layers = {probability: false, mask: true, truth: true};
let viewed = null, blinking = 0;

function view(image) {
  viewed = image;
  if (!$("viewer").open) $("viewer").showModal();
  show();
}

async function show() {
  const image = viewed;
  $("viewer-name").textContent = image.name;
  $("viewer-verdict").replaceChildren(...called(image), ` score ${number(image.score)}, ${share(image.share, 1)} of its area`);
  $("photo").hidden = !image.image && !image.link;
  if (image.image && $("photo").dataset.of !== image.name) $("photo").src = image.image;
  if (image.link && $("photo").dataset.of !== image.name) {  // the file itself, if it is there and a browser can show it
    const whole = new Image();
    whole.onload = () => { if (viewed === image) $("photo").src = whole.src; };
    whole.src = image.link;
  }
  $("photo").dataset.of = image.name;
  for (const button of $("layers").children) {
    if (button.dataset.layer) {
      button.hidden = !image[button.dataset.layer];
      button.setAttribute("aria-pressed", layers[button.dataset.layer]);
    }
  }
  const links = [["link", "original"], ["mask_link", "mask"]].filter(([key]) => image[key]);
  $("links").replaceChildren(...links.flatMap(([key, words]) => [el("a", {href: image[key], target: "_blank"}, words), " "]));
  await draw($("overlay"), image, layers);
  const proportion = $("overlay").width / $("overlay").height;
  $("stage").style.aspectRatio = proportion;
  $("stage").style.width = `min(100%, ${(62 * proportion).toFixed(1)}vh)`;
}

function step(by) {
  const list = listed(), place = list.indexOf(viewed);
  if (list.length) view(list[(Math.max(place, 0) + by + list.length) % list.length]);
}

function wipe(to) {
  $("wipe").value = to;
  $("overlay").style.clipPath = `inset(0 ${100 - to}% 0 0)`;
  $("divider").style.left = `${to}%`;
  $("divider").hidden = to <= 0 || to >= 100;
}

function blink() {
  clearInterval(blinking);
  const button = $("blink"), on = button.getAttribute("aria-pressed") !== "true" && $("viewer").open;
  button.setAttribute("aria-pressed", on);
  $("overlay").hidden = false;
  blinking = on ? setInterval(() => { $("overlay").hidden = !$("overlay").hidden; }, 500) : 0;
}

function toggle(layer) {
  layers[layer] = !layers[layer];
  show();
}

function makeViewer() {
  for (const layer of Object.keys(layers)) {
    const button = el("button", {type: "button"}, layer, el("kbd", {}, layer[0]));
    button.dataset.layer = layer;
    if (COLOURS[layer]) button.prepend(el("i", {className: `key ${layer}`}));
    button.addEventListener("click", () => toggle(layer));
    $("layers").append(button);
  }
  $("layers").append(el("button", {type: "button", id: "blink"}, "blink", el("kbd", {}, "b")));
  $("blink").addEventListener("click", blink);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => $("viewer").close());
  $("viewer").addEventListener("close", () => { blink(); viewed = null; });
  $("wipe").addEventListener("input", () => wipe(+$("wipe").value));
  $("stage").addEventListener("pointermove", (event) => {
    const {left, width} = $("stage").getBoundingClientRect();
    if (event.buttons) wipe(Math.round(Math.min(Math.max((event.clientX - left) / width, 0), 1) * 100));
  });
  document.addEventListener("keydown", (event) => {
    if (!viewed || event.target.type === "range" || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {ArrowLeft: () => step(-1), ArrowRight: () => step(1), b: blink, p: () => toggle("probability"),
      m: () => toggle("mask"), t: () => toggle("truth")}[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  wipe(100);
}
