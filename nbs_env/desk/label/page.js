// The page: tools and keys, the queue of images, training.
import { Item, ask } from "./item.js";
import { Tools } from "./tools.js";
import { View, stretch } from "./view.js";
import * as panel from "./panel.js";

const $ = (id) => document.getElementById(id);
const stage = $("stage"),
  view = new View(stage);
const tools = new Tools(
  view,
  () => whose && look(0),
  () => status(),
);
const items = new Map(); // promises of items, by number, the last used last
const visited = [],
  passed = new Set();
let item = null,
  at = -1,
  upcoming = [],
  names = [],
  server = {},
  round = 0,
  wanted = 0;
let whose = 0,
  contrast = false;

// Messages

let hiding = 0;
function say(text, bad = false) {
  clearTimeout(hiding);
  Object.assign($("notice"), { textContent: text, hidden: !text, className: bad ? "bad" : "" });
  if (text) hiding = setTimeout(() => say(""), bad ? 12000 : 5000);
}

const attempt =
  (action) =>
  async (...given) => {
    try {
      return await action(...given);
    } catch (error) {
      say(error.message, true);
    }
  };

// Images

function load(number) {
  const found = items.get(number) || new Item(number, changed).load();
  items.delete(number);
  items.set(number, found);
  found
    .then((each) => each.predict(round).then(() => each === item && shown()))
    .catch(() => items.delete(number));
  for (const [old, promise] of items) {
    if (items.size <= 6) break;
    promise
      .then((each) => each !== item && !each.unsaved && items.delete(old))
      .catch(() => items.delete(old));
    if (old === number) break;
  }
  return found;
}

const show = attempt(async (number) => {
  if (item) item.other = null;
  wanted = number;
  whose = 0;
  tools.cancel();
  location.hash = encodeURIComponent(names[number]);
  let found;
  try {
    found = await load(number);
    await Promise.race([
      found.predict(round).catch(() => {}),
      new Promise((resolve) => setTimeout(resolve, 300)),
    ]);
  } catch (error) {
    if (wanted === number) $("name").textContent = names[number];
    throw error;
  }
  if (wanted !== number) return; // another was asked for meanwhile
  item = found;
  if (!view.item) tools.setSize(Math.max(tools.size, Math.min(item.width, item.height) / 40));
  apply();
  view.show(item);
  status();
  if (item.blocked) say(item.blocked, true);
  ahead();
});

// A prediction has come for the image that is looked at.
function shown() {
  view.draw();
  status();
}

function visit(number) {
  visited.splice(at + 1, visited.length, number);
  at = visited.length - 1;
  return show(number);
}

// Ask for what comes next, and load it before it is wanted.
const ahead = attempt(async () => {
  const body = JSON.stringify({ passed: [...passed, visited[at]], count: 3 });
  upcoming = await (await ask("next", { method: "POST", body })).json();
  for (const number of upcoming.slice(0, 2)) load(number).catch(() => {});
});

const next = attempt(async () => {
  if (item && item.state !== "saved") passed.add(item.number);
  if (at < visited.length - 1) return show(visited[++at]);
  if (upcoming[0] === visited[at] || !upcoming.length) await ahead();
  const number = upcoming.find((each) => each !== visited[at]);
  if (number !== undefined) return visit(number);
  say("That was the last: all others are labelled or were passed. Next begins with the passed ones again.");
  passed.clear();
});

function back() {
  if (at > 0) show(visited[--at]);
}

function keep() {
  if (!item || item.blocked) return;
  if (item.state === "none")
    return say("Nothing is marked. Good (G) says that nothing is wrong with it; Next passes it by.");
  if (item.state === "predicted") item.keep();
  next();
}

function good() {
  if (!item || item.blocked) return;
  item.replace(null);
  view.drawMask();
  next();
}

// Views

function apply() {
  const own = contrast && item ? stretch(item.levels.at(-1)) : { brightness: 1, contrast: 1 };
  const more = 8 ** ($("contrast").value / 100);
  const plain = !contrast && more === 1;
  view.filter = plain ? "none" : `brightness(${own.brightness}) contrast(${own.contrast}) contrast(${more})`;
  view.draw();
  $("auto").setAttribute("aria-pressed", Boolean(contrast));
  $("heat").setAttribute("aria-pressed", view.showHeat);
}

const WHOSE = ["My mask", "Round's mask", "Round before"];
// My mask, or what a round's detector says: 0, 1 (the latest), 2 (the one before).
const look = attempt(async (which) => {
  const rounds = server.rounds || [];
  whose = rounds.length ? which % (Math.min(2, rounds.length) + 1) : 0;
  const here = item,
    of = rounds.at(-whose)?.round;
  const other = whose ? await here.predictedBy(of) : null;
  if (here !== item) return;
  item.other = other;
  $("whose").firstChild.textContent = `${whose ? `${WHOSE[whose]} (${of})` : WHOSE[0]} `;
  $("whose").setAttribute("aria-pressed", whose > 0);
  view.drawMask();
});

const take = attempt(async () => {
  if (!item?.round || item.blocked) return;
  const here = item,
    mask = await here.predictedBy(here.round);
  here.replace(mask);
  if (here === item) (await look(0), status());
});

// State

function changed(each) {
  if (each === item) {
    if (each.problem) say(each.problem, true);
    if (each.problem && !each.unsaved) view.drawMask();
    status();
  }
  if (!each.unsaved) refresh();
}

function status() {
  if (item) panel.describe(item, names[item.number], round, at < 1);
}

let ended = false,
  opened = false;
async function refresh() {
  try {
    server = await (await ask("state")).json();
    ended = false;
  } catch (error) {
    if (!ended) say(error.message, true);
    ended = true;
    return;
  }
  panel.show(server, names, visit);
  const latest = server.rounds.at(-1)?.round || 0;
  if (latest !== round) await another(latest);
  opened = true;
}

// A round was finished: its predictions take the place of those before.
async function another(latest) {
  const worth = panel.worthOf(server.rounds.slice(-2));
  if (opened)
    say(`Round ${latest} is done${worth && `: ${worth}`}. Enter keeps a prediction, painting mends it.`);
  round = latest;
  if (!item) return;
  const here = item;
  await here.predict(round).catch((error) => say(error.message, true));
  for (const number of [...items.keys()]) if (number !== here.number) load(number).catch(() => {});
  if (here === item) (look(0), shown());
  ahead();
}

const train = (action) =>
  attempt(async () => {
    say("");
    await ask(`train/${action}`, { method: "POST" });
    await refresh();
  });

// Keys and buttons

const actions = {
  undo: () => item?.undo() && (view.drawMask(), status()),
  redo: () => item?.redo() && (view.drawMask(), status()),
  clear: () => item && !item.blocked && (item.replace(null), look(0), status()),
  forget: () =>
    item?.state === "saved" &&
    !item.blocked &&
    (item.replace(null), item.forget(), (item.done = []), view.drawMask(), status()),
  auto: () => ((contrast = !contrast), apply()),
  heat: () => ((view.showHeat = !view.showHeat), apply()),
  whose: () => item?.round && look(whose + 1),
  fit: () => item && view.fit(),
  actual: () => item && view.zoom(1 / view.scale),
  help: () => $("keys").showModal(),
  train: train("start"),
  cancel: train("cancel"),
  resume: train("resume"),
  take,
  back,
  next,
  good,
  keep,
};
for (const [id, action] of Object.entries(actions))
  $(id).onclick = (event) => (action(), event.detail && stage.focus());
$("contrast").oninput = apply;
$("size").oninput = () => tools.setSize(1000 ** ($("size").value / 100));
stage.addEventListener("sized", () => {
  $("size").value = (Math.log(tools.size) / Math.log(1000)) * 100;
  $("pixels").textContent = `${tools.size} px`;
});
stage.addEventListener("drawn", () => ($("zoom").textContent = `${Math.round(view.scale * 100)} %`));

function choose(name) {
  tools.choose(name);
  for (const button of $("tools").children)
    button.setAttribute("aria-pressed", button.dataset.tool === tools.tool);
}
for (const button of $("tools").children) button.onclick = () => choose(button.dataset.tool);

const KEYS = {
  b: () => choose("brush"),
  e: () => choose("eraser"),
  l: () => choose("line"),
  p: () => choose("polygon"),
  "[": () => tools.resize(-1),
  "]": () => tools.resize(1),
  0: actions.fit,
  1: actions.actual,
  "?": actions.help,
  x: actions.clear,
  u: actions.forget,
  g: good,
  c: actions.auto,
  v: actions.heat,
  d: actions.whose,
  t: take,
  h: () => stage.classList.add("bare"),
  arrowleft: back,
  arrowright: next,
  escape: () => tools.cancel(),
  backspace: () => tools.shorten(),
  enter: (event) => (tools.corners.length ? tools.close(event.altKey ? 0 : 1) : keep()),
};
addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=range]), dialog *")) return;
  const key = event.key.toLowerCase(),
    control = event.ctrlKey || event.metaKey;
  if (key === " ") tools.space = true;
  else if (control && key === "z") event.shiftKey ? actions.redo() : actions.undo();
  else if (control && key === "y") actions.redo();
  else if (control || !KEYS[key] || tools.stroke || (event.repeat && ["g", "enter"].includes(key))) return;
  else if (event.target.matches("button, summary") && key === "enter") return;
  else KEYS[key](event);
  if (!event.target.matches("button")) event.preventDefault();
});
addEventListener("keyup", (event) => {
  if (event.key === " ") tools.space = false;
  if (event.key.toLowerCase() === "h") stage.classList.remove("bare");
});
addEventListener("blur", () => ((tools.space = false), stage.classList.remove("bare")));
addEventListener("beforeunload", (event) => item?.unsaved && event.preventDefault());

// Begin where the address says, or where the queue does

choose("brush");
tools.setSize(tools.size);
apply();
const [{ folder, names: all }, [first]] = await Promise.all([
  ask("names").then((r) => r.json()),
  ask("next", { method: "POST", body: JSON.stringify({ passed: [], count: 1 }) }).then((r) => r.json()),
]);
names = all;
panel.finder(names, visit, () => stage.focus());
document.title = `Label ${folder}`;
const stored = names.indexOf(decodeURIComponent(location.hash.slice(1)));
visit(stored >= 0 ? stored : (first ?? 0));
await refresh();
const unmarked = !Object.keys(server.labelled || {}).length;
// What differs from good images can be shown before anything is marked.
if (unmarked && server.training?.round === 0 && server.good >= panel.LEAST_GOOD) await train("start")();
if (unmarked)
  say("Paint over a defect; G says that there is none. ? shows all keys.");
(async function poll() {
  await new Promise((resolve) => setTimeout(resolve, server.training?.running ? 1000 : 3000));
  await refresh();
  poll();
})();
