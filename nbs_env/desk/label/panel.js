// What is said around the image: progress, training, thumbnails, the image's own state.

const $ = (id) => document.getElementById(id);

export const LEAST_GOOD = 2; // as in training.py

// The F1 of some rounds in words; empty where none has one.
export const worthOf = (rounds) =>
  rounds.some((each) => each.f1 !== null)
    ? `F1 left out ${rounds.map((each) => (each.f1 === null ? "-" : each.f1.toFixed(2))).join(" \u2192 ")}`
    : "";
const thumbs = (place, list, names, visit) => {
  const key = JSON.stringify(list);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(
    ...list.map(([number, kind, title]) => {
      const button = document.createElement("button"),
        picture = new Image();
      Object.assign(picture, { src: `api/thumbs/${number}`, alt: names[number], loading: "lazy" });
      Object.assign(button, { className: kind, title, onclick: () => visit(number) });
      button.append(picture);
      return button;
    }),
  );
};

// Show the state of the server.
export function show(server, names, visit) {
  const { labelled, rounds, training, looking, changes } = server;
  const marks = Object.entries(labelled),
    fine = marks.filter(([, defect]) => defect === false).length;
  const enough = fine < marks.length || server.good + fine >= LEAST_GOOD;
  const worth = worthOf(rounds.slice(-6));
  $("progress").textContent = `${marks.length} labelled, ${fine} good` + (worth && `, ${worth}`);
  $("worth").textContent = worth
    ? "F1 left out: on labelled images that the detector had not seen."
    : rounds.length
      ? "No F1 yet: it takes two images with a marked defect."
      : fine < marks.length
        ? "Train shows what the machine makes of it; five masks are a good start."
        : enough
          ? "Train shows what differs from the good images; marked defects make it better."
          : `Mark a defect in a few images, or ${LEAST_GOOD} images as good, then train.`;
  $("train").hidden = training.running;
  $("train").disabled = !enough;
  $("bar").hidden = !training.running;
  $("cancel").hidden = !training.own;
  $("resume").hidden = !training.resumable;
  $("share").value = training.share || 0;
  $("left").textContent = training.running
    ? `round ${training.round}: ` + (training.share ? `${training.what}, ${training.left} left` : "starting")
    : "";
  const stopped = training.round && !training.running && !training.done;
  $("failed").hidden = !stopped;
  $("failed").textContent = stopped
    ? training.log.findLast((line) => /^(error|interrupted)/.test(line)) ||
      `Round ${training.round} was stopped.`
    : "";
  $("logs").hidden = !training.log;
  const lines = (training.log || []).join("\n");
  if ($("log").textContent !== lines) Object.assign($("log"), { textContent: lines, scrollTop: 1e6 });
  $("looking").textContent =
    looking.described < names.length
      ? `${looking.described} of ${names.length} images looked at, to choose the next`
      : rounds.length
        ? `${looking.bad} of ${looking.judged} called bad` + (looking.judged < names.length ? " so far" : "")
        : "";
  $("changes").hidden = rounds.length < 2;
  $("unchanged").hidden = changes.length > 0;
  thumbs(
    document.querySelector("#changes .thumbs"),
    changes
      .slice(0, 60)
      .map(({ image, bad }) => [
        image,
        bad ? "defect" : "fine",
        `${names[image]}: now ${bad ? "bad" : "good"}`,
      ]),
    names,
    visit,
  );
  thumbs(
    $("labelled"),
    marks.slice(-300).map(([number, defect]) => [Number(number), defect ? "defect" : "fine", names[number]]),
    names,
    visit,
  );
}

// Show the state of an image.
export function describe(item, name, round, first) {
  const { state } = item,
    empty = item.mask.empty;
  const [text, kind] = item.blocked
    ? ["cannot be labelled", ""]
    : state === "saved"
      ? empty
        ? ["good", "fine"]
        : ["defect marked", "defect"]
      : state === "predicted"
        ? [`predicted ${empty ? "good" : "defect"}, not saved`, "predicted"]
        : ["not labelled", ""];
  $("name").textContent = name;
  Object.assign($("chip"), { textContent: text, className: kind });
  const verdict =
    round && !item.blocked && item.round !== round
      ? "prediction on its way"
      : item.round
        ? `score ${item.score}, called ${item.bad ? "bad" : "good"}`
        : "";
  $("saved").textContent = item.problem
    ? "not saved"
    : item.unsaved
      ? "saving"
      : state === "saved"
        ? `saved ${verdict}`
        : verdict;
  for (const [id, off] of Object.entries({
    undo: !item.done.length,
    redo: !item.undone.length,
    forget: state !== "saved",
    back: first,
    take: !item.round,
    heat: !item.round,
    whose: !item.round,
    good: item.blocked,
    keep: item.blocked,
    clear: item.blocked,
  }))
    $(id).disabled = off;
}

// A field that finds images by their names.
export function finder(names, visit, done) {
  $("find").oninput = () => {
    const wantedName = $("find").value.trim().toLowerCase();
    const hits = wantedName
      ? names.flatMap((name, i) => (name.toLowerCase().includes(wantedName) ? [i] : [])).slice(0, 12)
      : [];
    $("found").hidden = !hits.length;
    $("found").replaceChildren(
      ...hits.map((number) => {
        const line = document.createElement("li"),
          button = document.createElement("button");
        Object.assign(button, {
          textContent: names[number],
          onclick: () => (($("find").value = ""), ($("found").hidden = true), done(), visit(number)),
        });
        line.append(button);
        return line;
      }),
    );
  };
  $("find").onkeydown = (event) => {
    if (event.key === "Enter") $("found").querySelector("button")?.click();
    if (event.key === "Escape") (($("find").value = ""), ($("found").hidden = true), done());
  };
}
