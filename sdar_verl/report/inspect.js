"use strict";
// Text of a run reaches the page through textContent alone; an episode's data is parsed when it is opened.
(() => {
  const byId = (id) => document.getElementById(id);
  const facts = JSON.parse(byId("facts").textContent);
  const episodes = facts.episodes.map((entry, number) => ({ ...entry, number }));
  const GAP_END = 4; // nats at the ends of the colour scale
  const CHUNK = 100; // rows of the list that are made at a time
  let shown = [], made = 0, current = -1;

  function make(name, className, ...content) {
    const element = document.createElement(name);
    if (className) element.className = className;
    element.append(...content);
    return element;
  }
  const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const minus = (text) => text.replaceAll("-", "\u2212");
  const chosenColour = () => document.querySelector('input[name="colour"]:checked').value;

  // --- list and filters ---------------------------------------------------------------------------------------

  const outcomes = { won: (e) => e.won, lost: (e) => !e.won && !e.failed, failed: (e) => Boolean(e.failed) };
  const orders = {
    step: (a, b) => a.number - b.number,
    disagreement: (a, b) => b.disagreement - a.disagreement,
    invalid: (a, b) => (b.invalid ?? 0) / b.turns - (a.invalid ?? 0) / a.turns,
    reward: (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity) || 0,
    turns: (a, b) => b.turns - a.turns,
  };

  function filter() {
    const value = (id) => byId(id).value;
    const step = byId("every").checked ? null : facts.steps[Number(value("step"))].step;
    const task = value("task").toLowerCase();
    shown = episodes.filter((e) =>
      (step === null || e.step === step) &&
      (!value("split") || e.split === value("split")) &&
      (!value("outcome") || outcomes[value("outcome")](e)) &&
      (!value("type") || e.type === value("type")) &&
      (!byId("invalid").checked || e.invalid > 0) &&
      (!byId("scored").checked || e.scored > 0) &&
      (!task || e.task.toLowerCase().includes(task)));
    shown.sort((a, b) => orders[value("sort")](a, b) || a.number - b.number);
    const won = shown.filter((e) => e.won).length;
    byId("count").textContent = shown.length
      ? `${plural(shown.length, "episode")}, ${won} won (${percent(won / shown.length)})`
      : "No episode passes these filters.";
    byId("list").replaceChildren();
    byId("list").scrollTop = 0;
    made = 0;
    more();
    describeStep();
  }

  function more() {
    for (const entry of shown.slice(made, made + CHUNK)) byId("list").append(row(entry));
    made = Math.min(shown.length, made + CHUNK);
  }

  function row(e) {
    const facts = [`step ${e.step}`, e.split === "val" ? "panel" : "train", plural(e.turns, "turn")];
    if (e.invalid) facts.push(`${e.invalid} invalid`);
    if (e.reward !== null) facts.push(`reward ${minus(String(e.reward))}`);
    if (e.scored) facts.push(`${plural(e.decisions, "decision")} of ${e.scored} tokens`);
    const button = make("button", e.won ? "row won" : "row", make("b", "", e.task), make("small", "", facts.join(" · ")));
    button.type = "button";
    button.dataset.number = e.number;
    button.setAttribute("aria-current", String(e.number === current));
    return button;
  }

  function describeStep() {
    const all = byId("every").checked, at = facts.steps[Number(byId("step").value)];
    byId("step").disabled = all;
    const parts = all ? [`${plural(facts.steps.length, "recorded step")}`] : [`step ${at.step}`];
    if (!all) {
      if ("success" in at) parts.push(`success ${percent(at.success)}`);
      if ("panel" in at) parts.push(`panel ${percent(at.panel)}`);
      if ("valid" in at) parts.push(`valid actions ${percent(at.valid)}`);
      if ("gate" in at) parts.push(`gate ${at.gate.toFixed(3)}`);
      if ("gap" in at) parts.push(minus(`gap ${at.gap.toFixed(3)}`));
    }
    byId("at").textContent = parts.join(", ");
  }

  // --- one episode --------------------------------------------------------------------------------------------

  function open(number) {
    const e = episodes[number], detail = JSON.parse(byId(`e${number}`).textContent);
    current = number;
    for (const button of byId("list").children) {
      button.setAttribute("aria-current", String(Number(button.dataset.number) === number));
    }
    scrollTo({ top: Math.min(scrollY, byId("panes").offsetTop) });
    const parts = [make("h2", "", e.task), badges(e, detail)];
    if (detail.teacher) parts.push(make("h3", "", "What the two saw before the first answer"), sides(detail));
    parts.push(make("h3", "", "Turns"));
    parts.push(...detail.turns.map((turn, i) => turnView(i + 1, turn, Boolean(detail.teacher))));
    if (detail.loose.length) {
      parts.push(make("h3", "", "Scored tokens"));
      parts.push(make("p", "soft small", "They do not line up with the turns above and are shown on their own."));
      parts.push(...detail.loose.map(tokenView));
    }
    byId("episode").replaceChildren(...parts);
    byId("episode").dataset.number = number;
    paint();
    history.replaceState(null, "", `#episode-${number}`);
  }

  function badges(e, detail) {
    const line = make("p", "");
    const add = (text, kind = "") => line.append(make("span", `badge ${kind}`, text));
    add(e.failed ? `environment failed: ${e.failed}` : e.won ? "won" : "lost", e.won ? "won" : "lost");
    if (e.reward !== null) add(minus(`reward ${e.reward}`));
    add(`step ${e.step}`);
    add(e.split === "val" ? "panel" : `train, group ${e.group}`);
    add(e.type);
    add(plural(e.turns, "turn"));
    if (e.invalid) add(plural(e.invalid, "invalid action"), "bad");
    if (e.scored) add(`${e.decisions} of ${e.scored} tokens with |gap| > ${facts.decision} nats`);
    if (detail.seconds) add(`${detail.seconds[0]} s: model ${detail.seconds[1]}, environment ${detail.seconds[2]}`);
    if (detail.skills.length) add(`skills: ${detail.skills.join(", ")}`);
    return line;
  }

  function sides(detail) {
    const side = (title, lines) => {
      const block = make("pre", "");
      lines.forEach(([line, shared], i) => block.append(i ? "\n" : "", shared ? line : make("mark", "", line)));
      return make("div", "", make("h4", "", title), block);
    };
    return make("div", "sides", side("The student saw", detail.student), side("The teacher saw", detail.teacher));
  }

  function turnView(number, turn, scored) {
    const view = make("div", "turn"), [student, teacher, said] = turn.lengths ?? [];
    const counts = [];
    if (student !== undefined) counts.push(`prompt ${student} tokens`);
    if (teacher) counts.push(`teacher's prompt ${teacher}`);
    if (said !== undefined) counts.push(`answer ${said}`);
    if (turn.tokens) counts.push(plural(turn.tokens.decisions, "decision token"));
    view.append(make("h4", "", `Turn ${number} `, make("span", "soft small", counts.join(", "))));
    if (turn.seen) view.append(make("p", "seen", turn.seen));
    if (turn.tokens) view.append(tokenView(turn.tokens));
    else if (turn.said !== undefined) view.append(make("div", "said", turn.said));
    if (turn.action !== undefined) {
      const note = turn.valid ? "Action " : "Invalid action ";
      view.append(make("p", turn.valid ? "act" : "act bad", note, make("code", "", turn.action || "none")));
    }
    return view;
  }

  // --- tokens -------------------------------------------------------------------------------------------------

  const columnsOf = new WeakMap();

  function tokenView(columns) {
    const block = make("div", "tokens");
    columns.text.forEach((token) => block.append(make("i", "", token)));
    columnsOf.set(block, columns);
    return block;
  }

  function place(columns, i, by) {
    if (by === "gate") return columns.gate[i];
    const gap = columns.gap[i]; // square root: small gaps are many and should be told from none
    return 0.5 + 0.5 * Math.sign(gap) * Math.sqrt(Math.min(Math.abs(gap), GAP_END) / GAP_END);
  }

  function paint() {
    const by = chosenColour(), last = facts.shades.length - 1;
    for (const block of byId("episode").querySelectorAll(".tokens")) {
      const columns = columnsOf.get(block);
      [...block.children].forEach((token, i) => {
        const at = Math.min(1, Math.max(0, place(columns, i, by)));
        token.style.background = facts.shades[Math.round(at * last)];
      });
    }
    const ramp = make("span", "ramp");
    ramp.style.background = `linear-gradient(90deg, ${facts.shades.join(", ")})`;
    const [low, high] = by === "gap"
      ? [`\u2212${GAP_END} nats: teacher finds it less likely`, `+${GAP_END} nats: more likely`]
      : ["gate 0: not taught", "gate 1: taught in full"];
    byId("legend").replaceChildren(low, ramp, `${high}. Hover over a token for its numbers.`);
  }

  function probability(logp) {
    const share = Math.exp(Math.min(logp, 0));
    return share >= 0.001 ? percent(share) : share.toExponential(0);
  }

  function tip(token) {
    const columns = columnsOf.get(token.parentElement), i = [...token.parentElement.children].indexOf(token);
    const [student, teacher, gap, gate] = ["student_logp", "teacher_logp", "gap", "gate"].map((name) => columns[name][i]);
    const box = byId("tip");
    box.textContent = minus(
      `student ${student.toFixed(3)} (${probability(student)})\nteacher ${teacher.toFixed(3)} (${probability(teacher)})\n` +
      `gap ${gap > 0 ? "+" : ""}${gap.toFixed(3)} nats, gate ${gate.toFixed(3)}`);
    box.hidden = false;
    const at = token.getBoundingClientRect();
    box.style.left = `${Math.max(4, Math.min(at.left, innerWidth - box.offsetWidth - 8))}px`;
    const below = at.bottom + 6;
    box.style.top = `${below + box.offsetHeight < innerHeight ? below : at.top - box.offsetHeight - 6}px`;
  }

  // --- start --------------------------------------------------------------------------------------------------

  for (const type of [...new Set(episodes.map((e) => e.type))].sort()) {
    byId("type").append(new Option(type, type));
  }
  if (!episodes.some((e) => e.scored)) {
    byId("scored").disabled = true;
    document.querySelector("#controls .legend").hidden = true;
  }
  byId("step").max = facts.steps.length - 1;
  byId("step").value = facts.steps.length - 1;
  for (const id of ["split", "outcome", "type", "sort", "invalid", "scored", "every"]) {
    byId(id).addEventListener("change", filter);
  }
  byId("task").addEventListener("input", filter);
  byId("step").addEventListener("input", filter);
  for (const radio of document.querySelectorAll('input[name="colour"]')) radio.addEventListener("change", paint);
  byId("list").addEventListener("scroll", () => {
    const list = byId("list");
    if (list.scrollTop + list.clientHeight > list.scrollHeight - 400) more();
  });
  byId("list").addEventListener("click", (event) => {
    const button = event.target.closest(".row");
    if (button) open(Number(button.dataset.number));
  });
  byId("list").addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && event.target.closest(".row")?.[step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  });
  byId("episode").addEventListener("mouseover", (event) => {
    if (event.target.matches(".tokens > i")) tip(event.target);
    else byId("tip").hidden = true;
  });
  byId("episode").addEventListener("mouseleave", () => { byId("tip").hidden = true; });
  addEventListener("scroll", () => { byId("tip").hidden = true; }, { passive: true });
  filter();
  paint();
  const asked = Number(/^#episode-(\d+)$/.exec(location.hash)?.[1] ?? NaN);
  const first = shown.filter((e) => e.scored).at(-1) ?? shown[0];
  open(asked in episodes ? asked : first.number);
})();
