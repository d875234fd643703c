// Charts of figures, scores and the training.

const NARROW = 340, WIDE = 400, H = 170, LEFT = 38, RIGHT = 8, TOP = 8, BOTTOM = 24;

function frame(title, note, [x0, x1], [y0, y1], xName, yName) {
  const W = yName ? WIDE : NARROW;
  const at = (x, y) => [LEFT + (x - x0) / (x1 - x0 || 1) * (W - LEFT - RIGHT), H - BOTTOM - (y - y0) / (y1 - y0 || 1) * (H - TOP - BOTTOM)];
  const root = svg("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title});
  root.append(svg("path", {class: "axis", d: `M${LEFT} ${TOP}V${H - BOTTOM}H${W - RIGHT}`}));
  const text = (x, y, anchor, words) => root.append(svg("text", {x, y, "text-anchor": anchor}, words));
  text(LEFT, H - 8, "middle", short(x0));
  text(W - RIGHT, H - 8, "end", short(x1));
  text((LEFT + W - RIGHT) / 2, H - 8, "middle", xName);
  text(LEFT - 5, H - BOTTOM + 3, "end", short(y0));
  text(LEFT - 5, TOP + 8, "end", short(y1));
  if (yName) root.append(svg("text", {transform: `translate(11 ${(H - BOTTOM + TOP) / 2}) rotate(-90)`, "text-anchor": "middle"}, yName));
  const said = el("span", {}, note);
  return {at, root, said, note, figure: el("figure", {}, el("figcaption", {}, el("b", {}, title), said), root)};
}

function line(title, note, points, xRange, yRange, xName, yName, say, marks = []) {
  const chart = frame(title, note, xRange, yRange, xName, yName);
  for (const x of marks) {
    const [px] = chart.at(x, 0);
    chart.root.append(svg("line", {class: "mark", x1: px, x2: px, y1: TOP, y2: H - BOTTOM}));
  }
  const places = points.map(([x, y]) => chart.at(x, y));
  chart.root.append(svg("polyline", {class: "curve", points: places.map((p) => p.map((v) => v.toFixed(1)).join()).join(" ")}));
  const dot = svg("circle", {class: "here", r: 4, visibility: "hidden"});
  chart.root.append(dot);
  chart.show = (place) => {
    dot.setAttribute("visibility", "visible");
    dot.setAttribute("cx", place[0]);
    dot.setAttribute("cy", place[1]);
  };
  chart.rest = () => { dot.setAttribute("visibility", "hidden"); chart.said.textContent = chart.note; };
  chart.root.addEventListener("pointermove", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.root.getScreenCTM().inverse());
    let best = 0;
    places.forEach((place, i) => { if (Math.abs(place[0] - point.x) < Math.abs(places[best][0] - point.x)) best = i; });
    chart.show(places[best]);
    chart.said.textContent = say(points[best], best);
  });
  chart.root.addEventListener("pointerleave", () => chart.rest());
  return chart;
}

let precisionRecall = null, histogram = null;

function makeCharts() {
  if (curve && curve.anomalous) {
    const places = content.thresholds.map((_, i) => i).filter((i) => curve.true[i] + curve.false[i] > 0).reverse();
    const points = places.map((i) => { const [p, r] = pixelFigures(i); return [r, p]; });
    const ap = method && method.pixel_ap;
    precisionRecall = line("Precision and recall of pixels", ap ? `average precision ${number(ap)}` : "", points, [0, 1], [0, 1],
      "recall", "precision", ([r, p], i) => `from ${number(content.thresholds[places[i]])}: ${number(p)} at ${number(r)}`);
    precisionRecall.rest = () => {
      const figures = pixelFigures(chosen.pixel);
      precisionRecall.show(precisionRecall.at(figures[1], figures[0]));
      precisionRecall.said.textContent = precisionRecall.note;
    };
    $("charts").append(precisionRecall.figure);
  }
  const bins = 25, low = limits[0], high = limits.at(-2), width = (high - low) / bins || 1;
  const kinds = [["good", false, "good"], ["bad", true, "defective"], ["unknown", null, known.length ? "not known" : "images"]]
    .filter(([, truth]) => images.some((image) => image.defective === truth));
  const counts = kinds.map(([, truth]) => {
    const found = new Array(bins).fill(0);
    for (const image of images) {
      if (image.defective === truth) found[Math.min(bins - 1, Math.floor((image.score - low) / width))]++;
    }
    return found;
  });
  const most = Math.max(...counts[0].map((_, bin) => counts.reduce((sum, each) => sum + each[bin], 0)));
  histogram = frame("Scores of images", "", [low, high > low ? high : low + 1], [0, most], "score", "images");
  kinds.forEach(([kind, , words], k) => {
    histogram.said.append(el("i", {className: `key ${kind}`}), words);
    counts[k].forEach((count, bin) => {
      const below = counts.slice(0, k).reduce((sum, each) => sum + each[bin], 0);
      const [left, top] = histogram.at(low + bin * width, below + count);
      const [right, bottom] = histogram.at(low + (bin + 1) * width, below);
      if (count) histogram.root.append(svg("rect", {class: kind, x: left + .5, y: top, width: right - left - 1, height: bottom - top}));
    });
  });
  histogram.limit = svg("line", {class: "limit", y1: TOP, y2: H - BOTTOM});
  histogram.root.append(histogram.limit);
  $("charts").append(histogram.figure);
}

const NAMES = {
  prediction_loss: "Loss of the predictor, l_pred", buffer_loss: "Loss on the buffer's draw", autoencoder_loss: "Reconstruction loss",
  R_clone_mean: "R_clone, mean", R_cover_mean: "R_cover, mean", R_pred: "R_pred", beta: "beta", "agent/entropy": "Entropy of the policy, nats",
};

function makeTraining() {
  const {series, marks} = content.curves, order = Object.keys(NAMES);
  const place = (name) => order.includes(name) ? order.indexOf(name) : order.length;
  const names = Object.keys(series).sort((a, b) => place(a) - place(b));
  for (const name of names) {
    const points = series[name], last = points.at(-1), ys = points.map((p) => p[1]);
    const chart = line(NAMES[name] || name, `last ${short(last[1])}`, points, [points[0][0], last[0]],
      [Math.min(...ys), Math.max(...ys)], "update", "", ([x, y]) => `${short(y)} at ${Math.round(x)}`,
      marks.length > 60 ? [] : marks.filter((x) => x >= points[0][0] && x <= last[0]));
    $("curves").append(chart.figure);
  }
  if (marks.length && marks.length <= 60) $("marks").textContent = "Dashed: the autoencoder was re-initialised.";
  $("walked").hidden = !content.walk.length;
  $("walked-truth").hidden = !content.walk.some((image) => image.truth);
  for (const image of content.walk) {
    const rows = image.visits.length, columns = image.visits[0].length, most = Math.max(...image.visits.flat());
    const small = el("canvas", {width: columns, height: rows}), data = new ImageData(columns, rows);
    image.visits.flat().forEach((count, i) => {
      const level = Math.round(255 * count / most);
      data.data.set([...content.heat[Math.max(level, 60)], count ? 90 + level * .6 : 0], 4 * i);
    });
    small.getContext("2d").putImageData(data, 0, 0);
    const canvas = el("canvas", {width: 336, height: 336}), context = canvas.getContext("2d");
    context.drawImage(small, 0, 0, 336, 336);
    const outline = el("canvas");
    draw(outline, {truth: image.truth}, {truth: true});
    const sum = image.visits.flat().reduce((a, b) => a + b, 0);
    $("walk").append(el("figure", {}, el("div", {}, el("img", {src: image.image, alt: ""}), canvas, outline),
      el("figcaption", {}, image.name, el("span", {}, `${sum} patches`))));
  }
  $("training").hidden = !names.length && !content.walk.length;
}
