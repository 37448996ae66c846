"use strict";
// The browser of failing dialogues and the plots' tips. Texts of the logs are only ever set as text, never as markup.
(() => {
  const PAGE = 60;
  const byId = (id) => document.getElementById(id);
  const { points, dialogues } = JSON.parse(byId("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  // What people said may run from right to left, or hold marks that turn what follows: it is kept to itself.
  const said = (text, attributes = {}) => make("bdi", { dir: "auto", ...attributes }, text);
  const drawn = (tag, attributes, ...children) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const pointMark = (point) =>
    make(
      "span",
      { class: `point ${point}` },
      drawn("svg", { class: "mark", viewBox: "0 0 12 12", "aria-hidden": "true" }, drawn("use", { href: `#mark-${point}` })),
      point,
    );
  const unsure = () => make("span", { class: "unsure" }, "unsure");
  const percent = (share) => `${(100 * share).toFixed(0)} %`;
  const signed = (change) => `${change < 0 ? "−" : "+"}${Math.abs(100 * change).toFixed(0)}`;

  // Plots

  const tip = byId("tip");
  const spoken = byId("said");
  const at = { mark: null };
  const show = (mark, aloud) => {
    at.mark?.classList.remove("at");
    at.mark = mark;
    tip.hidden = mark === null;
    if (mark === null) return;
    mark.classList.add("at");
    tip.textContent = mark.getAttribute("aria-label");
    if (aloud) spoken.textContent = tip.textContent;
    const box = mark.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 10;
    // Set through the style's object model: the page's policy allows no style attributes.
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 0 ? above : box.bottom + 10}px`;
  };
  for (const plot of document.querySelectorAll(".plot svg")) {
    const marks = [...plot.querySelectorAll('[role="graphics-symbol"]')];
    plot.addEventListener("pointerover", (event) => show(event.target.closest('[role="graphics-symbol"]'), false));
    plot.addEventListener("pointerleave", () => show(null));
    plot.addEventListener("blur", () => show(null));
    plot.addEventListener("keydown", (event) => {
      const now = marks.indexOf(at.mark);
      const next = { ArrowRight: now + 1, ArrowDown: now + 1, ArrowLeft: now - 1, ArrowUp: now - 1, Home: 0, End: marks.length - 1 }[event.key];
      if (event.key === "Escape") show(null);
      if (next === undefined || !marks.length) return;
      event.preventDefault();
      show(marks[Math.min(Math.max(next, 0), marks.length - 1)], true);
    });
  }
  addEventListener("scroll", () => show(null), { passive: true });

  // Filters

  if (!dialogues.length) return;
  byId("browser").hidden = false;
  const filters = byId("filters");
  const list = byId("list");
  const more = byId("more");
  const detail = byId("detail");
  const isFailed = (turn) => turn.point !== "correct";
  const isUnsure = (turn, label) => (turn.abstained ?? []).includes(label);
  for (const dialogue of dialogues) {
    dialogue.failed = dialogue.turns.filter(isFailed);
    for (const turn of dialogue.turns) turn.words = `${turn.text ?? ""}\n${turn.response ?? ""}`.toLowerCase();
    dialogue.words = [dialogue.id.toLowerCase(), ...dialogue.turns.map((turn) => turn.words)].join("\n");
  }
  const counts = new Map();
  for (const dialogue of dialogues)
    for (const intent of new Set(dialogue.failed.map((turn) => turn.intent ?? "")))
      if (intent) counts.set(intent, (counts.get(intent) ?? 0) + 1);
  for (const [intent, count] of [...counts].sort((a, b) => b[1] - a[1]))
    filters.elements.intent.append(make("option", { value: intent }, `${intent} (${count})`));

  let found = [];
  let chosen = null;

  const matches = (turn, wanted) =>
    (!wanted.points.length || wanted.points.includes(turn.point)) &&
    (!wanted.intent || turn.intent === wanted.intent) &&
    (!wanted.sure || !isUnsure(turn, "failure_point"));

  const filter = () => {
    const form = new FormData(filters);
    const wanted = { points: form.getAll("point"), intent: form.get("intent"), sure: form.has("sure") };
    const text = form.get("text").trim().toLowerCase();
    found = [];
    for (const dialogue of dialogues) {
      if (text && !dialogue.words.includes(text)) continue;
      const fitting = dialogue.failed.filter((turn) => matches(turn, wanted));
      // The turn with the words that are looked for, else the one that the dialogue is an example of, where they fit.
      const turn =
        (text && fitting.find((each) => each.words.includes(text))) ||
        (fitting.find((each) => each.index === dialogue.turn) ?? fitting[0]);
      if (turn) found.push({ dialogue, turn });
    }
    list.replaceChildren();
    grow();
    byId("found").textContent = `${found.length.toLocaleString("en")} of ${dialogues.length.toLocaleString("en")} dialogues`;
  };

  const grow = () => {
    const start = list.children.length;
    for (const { dialogue, turn } of found.slice(start, start + PAGE)) {
      const button = make(
        "button",
        { type: "button", "aria-current": String(dialogue === chosen) },
        make("span", { class: "said" }, turn.text ? said(turn.text) : make("em", {}, "no text")),
        make("span", { class: "about" }, pointMark(turn.point), said(turn.intent ?? "")),
      );
      button.addEventListener("click", () => open(dialogue, true));
      list.append(make("li", {}, button));
    }
    more.hidden = list.children.length >= found.length;
    if (!found.length) list.append(make("li", {}, "No dialogue fits these filters."));
  };

  // A dialogue

  const bar = (share, point) =>
    drawn(
      "svg",
      { class: "bar", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("rect", { x: 0, y: 2, width: (100 * share).toFixed(1), height: 8, fill: `var(--${point})` }),
    );
  const table = (caption, heads, rows, attributes = {}) =>
    make(
      "table",
      attributes,
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows),
    );
  const row = (...cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell)));
  const hypotheses = (caption, heads, entries, left) =>
    table(
      left ? `${caption}; ${left} more are not shown` : caption,
      heads,
      entries.map((entry) => row(entry.text ? said(entry.text) : make("em", {}, "nothing"), entry.score === undefined ? "–" : entry.score.toPrecision(3))),
    );

  const labels = (turn) => {
    const tables = [
      table(
        "Failure point: probabilities",
        ["failure point", "probability", make("span", { class: "hidden" }, "drawn")],
        points.map((point, place) => {
          const cells = row(pointMark(point), turn.probabilities[place].toFixed(2), bar(turn.probabilities[place], point));
          cells.lastChild.className = "draw";
          return cells;
        }),
      ),
      table("Other labels", ["label", "value"], [
        row("intent", make("span", {}, turn.intent ? said(`${turn.intent} ${turn.intent_confidence.toFixed(2)} `) : "none ", isUnsure(turn, "intent") ? unsure() : null)),
        row("slots", make("span", {}, said((turn.slots ?? []).join("; ") || "none"), isUnsure(turn, "slots") ? unsure() : null)),
        row("rephrase of", make("span", {}, turn.rephrase_of === undefined ? "–" : `turn ${turn.rephrase_of} `, isUnsure(turn, "rephrase") ? unsure() : null)),
      ], { class: "other" }),
    ];
    if (turn.asr) tables.push(hypotheses("Recognised, best first", ["words", "score"], turn.asr, turn.more_asr));
    if (turn.nlu) tables.push(hypotheses("Understood, best first", ["domain, intent and slots", "score"], turn.nlu, turn.more_nlu));
    const details = make("details", {}, make("summary", {}, "Hypotheses and probabilities"), make("div", { class: "pair" }, ...tables));
    details.open = isFailed(turn);
    return details;
  };

  const because = (turn) => {
    if (!turn.why) return null;
    const entries = turn.why.map((effect) =>
      make("li", {}, said(effect.what), `: ${signed(effect.defect)} points to “failed”, ${signed(effect.point)} to “${turn.point}”`),
    );
    return make("div", { class: "why" }, make("span", { class: "label" }, "What moved the model: its answer, less its answer without this"), make("ul", {}, ...entries));
  };

  const showTurn = (turn, dialogue) => {
    const failed = isFailed(turn);
    const share = turn.probabilities[points.indexOf(turn.point)];
    const answer = [turn.response ? said(turn.response) : null, turn.action ? make("span", { class: "label" }, " (", said([turn.action, turn.status].filter(Boolean).join(", ")), ")") : null];
    return make(
      "li",
      { class: failed ? `turn failed ${turn.point}` : "turn" },
      make(
        "div",
        { class: "head" },
        `Turn ${turn.index}`,
        pointMark(turn.point),
        percent(share),
        isUnsure(turn, "failure_point") ? unsure() : null,
        dialogue.goals.length > 1 ? `goal ${turn.goal + 1}` : null,
      ),
      make(
        "dl",
        { class: "talk" },
        make("dt", {}, "user"),
        make("dd", { class: "user" }, turn.text ? said(turn.text) : make("em", {}, "not in the log")),
        make("dt", {}, "assistant"),
        make("dd", {}, ...(answer.some(Boolean) ? answer : [make("em", {}, "no answer in the log")])),
      ),
      turn.then ? make("div", { class: "next" }, make("span", { class: "label" }, "What the user did next"), make("ul", {}, ...turn.then.map((each) => make("li", {}, each)))) : null,
      because(turn),
      labels(turn),
    );
  };

  const showGoal = (goal, place) =>
    make(
      "li",
      {},
      `Goal ${place + 1}: `,
      said(goal.intent ?? "no intent"),
      ` was ${goal.success ? "reached" : "not reached"} (${percent(goal.confidence)})`,
      goal.success || goal.point === "correct" ? null : make("span", {}, ", failed at ", pointMark(goal.point)),
    );

  const open = (dialogue, focus) => {
    chosen = dialogue;
    for (const [place, item] of [...list.querySelectorAll("button")].entries())
      item.setAttribute("aria-current", String(found[place].dialogue === dialogue));
    const heading = make("h3", { tabindex: "-1" }, said(dialogue.id));
    const back = make("button", { type: "button", class: "back" }, "Back to the list");
    back.addEventListener("click", () => (list.querySelector('[aria-current="true"]') ?? filters.elements.text).focus());
    const facts = [dialogue.time, dialogue.device, dialogue.locale].filter(Boolean);
    detail.replaceChildren(
      back,
      heading,
      make("p", { class: "meta" }, ...facts.flatMap((fact, place) => (place ? [", ", said(fact)] : [said(fact)]))),
      make("ul", { class: "goals" }, ...dialogue.goals.map(showGoal)),
      make("ol", { class: "turns" }, ...dialogue.turns.map((turn) => showTurn(turn, dialogue))),
      dialogue.more_turns ? make("p", { class: "meta" }, `${dialogue.more_turns} more turns of this dialogue are not shown.`) : "",
    );
    if (focus) {
      history.replaceState(null, "", `#dialogue=${encodeURIComponent(dialogue.id)}`);
      heading.focus({ preventScroll: true });
      detail.scrollIntoView({ block: "start" });
    }
  };

  filters.addEventListener("input", filter);
  filters.addEventListener("reset", () => setTimeout(filter));
  filters.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const next = list.children.length;
    grow();
    list.children[next]?.firstChild.focus();
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const item = event.target.closest("li");
    if (!step || !item) return;
    event.preventDefault();
    (step > 0 ? item.nextElementSibling : item.previousElementSibling)?.firstChild.focus();
  });
  for (const button of document.querySelectorAll(".find"))
    button.addEventListener("click", () => {
      filters.reset();
      for (const box of filters.elements.point) box.checked = box.value === button.dataset.point;
      filters.elements.intent.value = button.dataset.intent ?? "";
      filter();
      if (found.length) open(found[0].dialogue, false);
      byId("dialogues").scrollIntoView();
      (list.querySelector("button") ?? filters.elements.text).focus({ preventScroll: true });
    });

  filter();
  const linked = new URLSearchParams(location.hash.slice(1)).get("dialogue");
  const target = dialogues.find((dialogue) => dialogue.id === linked);
  open(target ?? dialogues[0], target !== undefined);
})();
