// The table of images, and the thresholds.

const shown = new Set();
let filter = "all", sorted = "score";
const FILTERS = [
  ["all", "all", () => true],
  ["bad", "called bad", isBad],
  ["doubtful", "worth a second look", (image) => image.doubtful],
  ["wrong", "wrong", (image) => verdict(image).wrong],
];
const ORDERS = {
  score: (a, b) => b.score - a.score, share: (a, b) => b.share - a.share,
  name: (a, b) => a.name.localeCompare(b.name, "en", {numeric: true}),
};

const watcher = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    const image = images[target.dataset.index];
    if (!isIntersecting) { shown.delete(image); continue; }
    shown.add(image);
    if (image.image && !image.photo.src) image.photo.src = image.image;
    draw(image.canvas, image, {probability: true});
  }
}, {rootMargin: "200px"});

function makeTable() {
  images.forEach((image, index) => {
    image.photo = el("img", {alt: "", hidden: !image.image});
    image.canvas = el("canvas");
    image.called = el("td");
    const open = el("button", {type: "button"}, image.name);
    image.row = el("tr", {}, el("td", {}, image.photo), el("td", {}, image.canvas), el("td", {className: "name"}, open),
      el("td", {}, number(image.score)), el("td", {className: "wide"}, share(image.share, 1)), image.called);
    image.row.dataset.index = index;
    image.row.addEventListener("click", () => view(image));
    watcher.observe(image.row);
  });
  for (const [key, words] of FILTERS) {
    if (key === "wrong" && !known.length) continue;
    const button = el("button", {type: "button"}, `${words} `, el("output", {id: `count-${key}`}));
    if (key === "doubtful") button.title = "close to the threshold: the odds are within a factor of two of its own";
    button.addEventListener("click", () => { filter = key; update(); });
    $("filters").append(button);
  }
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => { sorted = button.dataset.sort; arrange(); });
  }
  arrange();
}

function arrange() {
  images.sort(ORDERS[sorted]);
  images.forEach((image, index) => { image.row.dataset.index = index; });
  document.querySelector("#images tbody").append(...images.map((image) => image.row));
  for (const button of document.querySelectorAll("[data-sort]")) button.setAttribute("aria-pressed", button.dataset.sort === sorted);
}

const listed = () => images.filter(FILTERS.find(([key]) => key === filter)[2]);

function called(image) {
  const {bad, wrong, tag} = verdict(image);
  const parts = [el("span", {className: `called ${bad ? "bad" : "good"}`}, bad ? "bad" : "good")];
  if (wrong) parts.push(el("span", {className: "tag"}, tag), " ");
  if (image.doubtful) parts.push(el("span", {className: "tag"}, "second look"));
  return parts;
}

function update() {
  const bad = images.filter(isBad).length, pixel = chosen.pixel ?? content.default;
  $("pixel").value = pixel;
  $("pixel-value").textContent = number(content.thresholds[pixel]);
  const asRun = chosen.image === null;
  const limit = asRun ? content.image_threshold : limits[chosen.image];
  $("image-value").textContent = limit === null ? "where its mask marks anything"
    : limit === Infinity ? "never" : `from score ${number(limit)}`;
  $("image").value = !asRun ? chosen.image
    : limit === null ? Math.max(0, limits.length - 1 - bad) : limits.filter((score) => score < limit).length;
  $("reset").disabled = asRun && chosen.pixel === null;
  $("rule").textContent = crf && chosen.pixel !== null ? "Moved: without the dense CRF, which the detector's own masks went through." : "";
  const rows = [["pixels", pixelFigures(chosen.pixel)], ["images", imageFigures()]].filter(([, figures]) => figures);
  $("figures").replaceChildren(el("div", {}, el("span", {id: "called"}, share(bad, images.length)), ` called bad, ${bad} of ${images.length}`));
  if (rows.length) {
    const head = el("tr", {}, el("th"), ...["precision", "recall", "F1"].map((name) => el("th", {}, name)));
    $("figures").append(el("table", {}, head, ...rows.map(([name, figures]) =>
      el("tr", {id: `figures-${name}`}, el("th", {}, name), ...figures.map((x) => el("td", {}, number(x)))))));
  }
  if (precisionRecall) precisionRecall.rest();
  const inside = limit !== null && Number.isFinite(limit);
  const [x] = histogram.at(inside ? Math.min(Math.max(limit, limits[0]), limits.at(-2)) : 0, 0);
  for (const end of ["x1", "x2"]) histogram.limit.setAttribute(end, x);
  histogram.limit.setAttribute("visibility", inside ? "visible" : "hidden");
  const visible = new Set(listed());
  for (const image of images) {
    image.called.replaceChildren(...called(image));
    image.row.hidden = !visible.has(image);
  }
  $("none").hidden = visible.size > 0;
  for (const [key, , wanted] of FILTERS) {
    const count = $(`count-${key}`);
    if (count) { count.textContent = images.filter(wanted).length; count.parentNode.setAttribute("aria-pressed", key === filter); }
  }
  for (const image of shown) draw(image.canvas, image, {probability: true});
  if (viewed) show();
}
