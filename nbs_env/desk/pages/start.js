// What stands in the page once, and what starts it.

function table(rows) {
  return el("table", {}, ...rows.map((cells, i) => el("tr", {}, ...cells.map((cell, j) => el(i && j ? "td" : "th", {}, cell)))));
}

function makeFacts() {
  $("name").textContent = content.name;
  if (known.length) {
    const found = defective.filter((image) => image.bad).length, good = known.length - defective.length;
    const alarms = known.filter((image) => !image.defective && image.bad).length;
    const parts = [];
    if (defective.length) parts.push(`${found} of ${defective.length} defective images found`);
    if (good) parts.push(`${alarms} of ${good} good images called bad`);
    $("truth").textContent = `${parts.join(", ")}.`;
  }
  const methods = Object.entries(content.methods).filter(([, figures]) => Object.keys(figures).length);
  const names = Object.keys(methods[0]?.[1] ?? {});
  if (names.length) {
    $("all").hidden = false;
    $("methods").append(table([["figure", ...methods.map(([name]) => name)],
      ...names.map((name) => [name.replaceAll("_", " "), ...methods.map(([, figures]) => number(figures[name]))])]));
  }
  $("facts").append(...content.facts.flatMap(([what, which]) => [el("dt", {}, what), el("dd", {}, which)]));
  for (const [group, settings] of Object.entries(content.settings)) {
    if (!Object.keys(settings).length) continue;
    $("settings").append(el("h4", {}, group));
    for (const [name, value] of Object.entries(settings)) {
      $("settings").append(el("span", {}, name), el("span", {}, Array.isArray(value) ? value.join(" ") : String(value)));
    }
  }
  $("command").textContent = content.command;
  $("copy").addEventListener("click", async () => {
    getSelection().selectAllChildren($("command"));
    try { await navigator.clipboard.writeText(content.command); } catch { document.execCommand("copy"); }
    $("copy").textContent = "Copied";
  });
}

function makeSliders() {
  $("image").max = limits.length - 1;
  $("pixel").addEventListener("input", () => {
    const place = +$("pixel").value;
    chosen.pixel = place === content.default ? null : place;
    update();
  });
  $("image").addEventListener("input", () => { chosen.image = +$("image").value; update(); });
  $("reset").addEventListener("click", () => { chosen.pixel = chosen.image = null; update(); });
}

makeFacts();
makeCharts();
makeTraining();
makeTable();
makeViewer();
makeSliders();
update();
