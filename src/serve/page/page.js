// Asks every two seconds how it is, and shows that. It changes nothing anywhere.

const INTERVAL_MS = 2000;
const PATIENCE_MS = 5000;
/** A daemon that answers but hasn't looked for so long knows nothing. */
const STALE_MS = 60000;
const TABLES = 40;
const PLAN = JSON.parse(at("plan").textContent);
const RESTS = ["pause", "open"].map((name) => PLAN.findIndex(({ step }) => step === name));

const state = { status: null, answered: null, looked: null, changed: null, recent: [], older: [], lost: null, range: 900 };

const charts = {
  lag: new Chart(at("chart-lag"), {
    title: "Lag", least: 0.6, unit: seconds,
    series: [{ name: "behind", kind: "first", of: (p) => p.lag_seconds }],
  }),
  rows: new Chart(at("chart-rows"), {
    title: "Rows per second", least: 10, unit: (n) => rate(n).slice(0, 1),
    series: [
      { name: "written", kind: "second", of: (p) => p.rows_written_per_second },
      { name: "applied", kind: "first", of: (p) => sum(p.rows_applied_per_second, p.rows_copied_per_second) },
    ],
  }),
};
const sum = (a, b) => (known(a) || known(b) ? (a ?? 0) + (b ?? 0) : null);

const isOpen = (incident) => !incident.resolved_at;
const openSwitch = (s) => (s.switch && !s.switch.outcome ? s.switch : null);

/** [tone, sentence, why]: how it is. */
function verdict(s) {
  const reverse = s.direction === "reverse";
  const behind = s.lag ? `${text(seconds(s.lag.seconds))} behind` : "behind by an unknown time";
  const first = s.incidents.find(isOpen);
  const why = first ? first.message : s.daemon.detail;
  const what = openSwitch(s);
  if (what && s.verdict !== "lost") {
    const step = PLAN.find(({ step }) => step === what.step)?.what ?? what.step;
    const name = what.way === "rollback" ? "Switching back" : "Switching";
    return what.is_held ? ["busy", `${name}: ${step}`, ""] : ["warn", `${name} was left at “${step}”`, `Run cdc ${what.way} again.`];
  }
  switch (s.verdict) {
    case "streaming": return ["good", reverse ? `Streaming back: the old source is ${behind}` : `Streaming: the target is ${behind}`, ""];
    case "copying": {
      const left = known(s.copy?.eta_seconds) ? `, about ${lasting(s.copy.eta_seconds)} left` : "";
      return ["busy", s.copy && s.copy.fraction < 1 ? `Copying: ${percent(s.copy.fraction)} done${left}` : "Copying: putting back what was held back", s.daemon.detail];
    }
    case "behind": {
      if (s.source_error) return ["warn", "The database that is read from can’t be asked", s.source_error];
      return ["warn", s.daemon.state === "streaming" && s.lag ? `Behind: ${behind}` : `Behind: the daemon is ${s.daemon.state ?? "starting"}`, why];
    }
    case "blocked": return ["bad", "Blocked: a person is needed", why];
    case "lost": return ["bad", "The slot is lost: the rows have to be copied again", "Run cdc repair --all."];
    case "done": return ["quiet", "Done: nothing is replicated any more", ""];
    default: return ["bad", "Stopped: no daemon is running", s.daemon.detail];
  }
}

function showHead(s) {
  let [tone, sentence, why] = verdict(s);
  if (tone !== "bad" && budget(s.slot).tone === "bad") {
    const left = known(state.lost) ? ` in about ${lasting(state.lost)}` : " soon";
    [tone, why] = ["warn", ["The slot may be lost" + left + ": what the source keeps for it is limited.", why].filter(Boolean).join("\n")];
  }
  document.body.dataset.tone = tone;
  write(at("name"), s.name);
  write(at("phase"), s.phase ? `phase ${s.phase}` : "not begun");
  write(at("sentence"), sentence);
  // Once for each verdict and each step, not for each figure.
  if (!same("verdict", [s.verdict, openSwitch(s)?.step])) write(at("said"), sentence);
  write(at("because"), why ?? "");
  at("because").hidden = !why;
  write(at("read"), s.source);
  write(at("arrow"), s.direction === "reverse" ? "⟶ in reverse ⟶" : "⟶");
  write(at("applied"), s.target);
  at("way").hidden = false;
  document.title = `${s.verdict} – ${s.name} – cdc`;
  const colour = getComputedStyle(document.body).getPropertyValue("--tone").trim();
  if (!same("colour", colour)) at("icon").href = `data:image/svg+xml,${encodeURIComponent(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${colour}"/></svg>`)}`;
}

function showFigures(s) {
  const last = state.recent.at(-1);
  figure(at("lag"), seconds(s.lag?.seconds));
  write(at("lag-note"), s.lag ? `${text(bytes(s.lag.bytes))} of WAL` : "not known");
  at("card-lag").dataset.tone = s.lag && s.lag.seconds > 60 ? "warn" : "good";
  write(at("rows-title"), known(last?.rows_copied_per_second) ? "Copied and applied" : "Applied");
  figure(at("rows"), rate(sum(last?.rows_applied_per_second, last?.rows_copied_per_second)));
  write(at("rows-note"), `${text(rate(last?.rows_written_per_second))} written`);
  showSlot(s.slot);
  const v = s.last_verify;
  const outcome = { same: "the same", different: "different" }[v?.outcome] ?? "not compared";
  figure(at("verify"), [v ? outcome : "never", ""]);
  at("card-verify").dataset.tone = !v || v.outcome === "same" ? "good" : v.outcome === "different" ? "bad" : "warn";
  const differ = v && v.differences > 0 ? `, ${count(v.differences)} differ` : "";
  write(at("verify-note"), v ? `${count(v.rows)} rows${differ}, ${ago(v.finished_at, Date.now())}` : "cdc verify compares every row");
}

/** What part of the slot's budget is left, and how that is. */
function budget(slot) {
  const left = slot?.safe_wal_size_bytes, lost = state.lost ?? Infinity;
  const share = known(left) ? Math.max(0, left) / (Math.max(0, left) + slot.retained_bytes || 1) : 1;
  const isLost = slot?.wal_status === "lost" || slot?.wal_status === "unreserved";
  const tone = isLost || share < 0.2 || lost < 3600 ? "bad" : share < 0.5 || lost < 4 * 3600 ? "warn" : "good";
  return { share, tone };
}

function showSlot(slot) {
  const left = slot?.safe_wal_size_bytes;
  const hasLimit = known(left);
  const { share, tone } = budget(slot);
  const isLost = slot?.wal_status === "lost";
  const lost = state.lost;
  at("card-slot").dataset.tone = tone;
  figure(at("slot"), !slot ? [DASH, ""] : isLost ? ["lost", ""] : hasLimit ? (left > 0 ? bytes(left).map((p, i) => (i ? `${p} left` : p)) : ["used up", ""]) : ["no limit", ""]);
  at("slot-meter").hidden = !hasLimit || isLost;
  meter(at("slot-meter"), 1 - share);
  const held = slot ? `${text(bytes(slot.retained_bytes))} held` : "there is no slot";
  write(at("slot-note"), known(lost) && !isLost ? `${held}; lost in ${lasting(lost)} at this rate` : held);
}

function showSwitch(s) {
  const last = s.switch;
  at("switch").hidden = !last;
  if (!last) return;
  const name = last.way === "rollback" ? "Rollback" : "Cutover";
  const begun = `begun ${when(last.begun_at)} by ${last.holder}`;
  write(at("switch-title"), name);
  write(at("switch-note"), last.outcome ? `${last.outcome}; ${begun}` : `${last.is_held ? "under way" : "left"}; ${begun}`);
  const now = PLAN.findIndex(({ step }) => step === last.step);
  at("plan-steps").hidden = Boolean(last.outcome) && last.outcome !== "switched";
  if (!same("switch", [last.id, last.outcome])) at("plan-steps").open = !last.outcome;
  at("steps").replaceChildren(...PLAN.map(({ what }, i) => {
    const done = last.outcome === "switched" || i < now;
    const item = element("li", done ? "done" : i === now ? "now" : "", what);
    if (i >= RESTS[0] && i <= RESTS[1]) item.classList.add("rests");
    if (!done && i === now) item.setAttribute("aria-current", "step");
    item.append(element("span", "unseen", done ? ", done" : i === now ? ", now" : ""));
    return item;
  }));
}

function incident(i) {
  const tones = { blocked: "bad", failing: "bad", retrying: "warn", warning: "warn" };
  const node = element("article", "incident");
  node.dataset.tone = isOpen(i) ? tones[i.severity] ?? "warn" : "quiet";
  const over = i.was_skipped ? `, skipped ${when(i.resolved_at)}` : i.resolved_at ? `, over ${when(i.resolved_at)}` : "";
  const side = i.side ? ` on the ${i.side}` : "";
  node.append(element("p", "kind", `${i.severity}${side}${over}`), element("p", "what", i.message));
  const places = [["table", i.table], ["key", i.key], ["LSN", i.lsn], ["SQLSTATE", i.sqlstate]];
  const seen = i.count > 1 ? `${count(i.count)} times, ${when(i.first_at)} to ${when(i.last_at)}` : when(i.first_at);
  node.append(element("p", "place",
    ...places.filter(([, value]) => value).map(([name, value]) => element("span", "", `${name} `, element("span", "mono", value))),
    element("span", "", seen)));
  if (i.remedy && isOpen(i)) node.append(element("p", "remedy", element("b", "", "What to do: "), i.remedy));
  return node;
}

function showIncidents(s) {
  const [open, over] = [s.incidents.filter(isOpen), s.incidents.filter((i) => !isOpen(i))];
  if (same("incidents", s.incidents)) return;
  at("open").replaceChildren(...(open.length ? open.map(incident) : [element("p", "note", "None is open.")]));
  at("over").hidden = over.length === 0;
  write(at("over-title"), `Incidents that are over: ${over.length}`);
  at("resolved").replaceChildren(...over.map(incident));
}

function showCopy(s) {
  const copy = s.copy;
  at("copy").hidden = !copy || copy.fraction === 1 && copy.held_back === 0;
  if (at("copy").hidden) return;
  const left = known(copy.eta_seconds) ? `, about ${lasting(copy.eta_seconds)} left` : "";
  write(at("copy-note"), `${percent(copy.fraction)}${left}; ${count(copy.rows)} of about ${count(copy.rows_planned)} rows, `
    + `${copy.tables_done} of ${copy.tables} tables; ${text(rate(copy.rows_per_second))}, ${text(bytes(copy.bytes_per_second))}/s`);
  meter(at("copy-meter"), copy.fraction);
  const unfinished = copy.details.filter((table) => table.state !== "done");
  at("copy-tables").tBodies[0].replaceChildren(...unfinished.slice(0, TABLES).map((t) => {
    const bar = element("div", "meter", element("span", ""));
    meter(bar, t.fraction);
    const row = element("tr", "", ...[t.table, t.state === "failed" ? "failed" : t.state === "pending" ? "waits" : percent(t.fraction), bar,
      t.rows_planned > 0 ? `${count(t.rows)} of ${count(t.rows_planned)}` : count(t.rows), known(t.rows_per_second) ? count(t.rows_per_second) : "",
      known(t.eta_seconds) ? lasting(t.eta_seconds) : ""].map((cell) => element("td", "", cell)));
    if (t.state === "failed") row.dataset.tone = "bad";
    return row;
  }));
  at("copy-tables").hidden = unfinished.length === 0;
  const more = unfinished.length > TABLES ? `And ${unfinished.length - TABLES} more. ` : "";
  write(at("copy-more"), `${more}Finished: ${copy.tables_done}${copy.held_back ? `; constraints and indexes held back: ${copy.held_back}` : ""}`);
}

function showDetails(s) {
  const d = s.daemon, c = s.checkpoint;
  const held = Object.entries(s.copy?.held_until_cutover ?? {}).map(([kind, n]) => several(n, kind));
  const old = s.old_side;
  const users = (old?.users ?? []).map((u) => `${u.role} (${u.application}), ${several(u.sessions, "session")}`);
  const rows = [
    ["Daemon", d.state ? `${d.is_running ? "" : "not running, was last "}${d.state} since ${when(d.since)}; pid ${d.pid} on ${d.host}, version ${d.version}` : "has never run"],
    // An open incident says the same, and more.
    ["Doing now", s.incidents.some((i) => isOpen(i) && d.detail?.includes(i.message)) ? null : d.detail],
    ["Consistent", s.copy?.consistent_since ? `since ${when(s.copy.consistent_since)}` : s.copy ? "not yet" : null],
    ["Applied", c ? `${several(c.changes, "row")} in ${several(c.transactions, "transaction")}, up to ${c.lsn}` : null],
    ["Slot", s.slot ? `${s.slot.name}, ${s.slot.is_active ? "in use" : "not in use"}, WAL ${s.slot.wal_status ?? "unknown"}` : "none"],
    ["Held back", held.length ? `until the cutover: ${held.join(", ")}` : null],
    ["Skipped", s.skipped.transactions ? `${several(s.skipped.transactions, "transaction")}: the target lacks what was changed there` : null],
    ["Repairs", s.repairs.length ? s.repairs.map((r) => `${r.table ?? "everything"}, ${r.begun_at ? "under way" : "asked for"}`).join("\n") : null],
    ["Old side", old ? [`${old.database}: ${users.length ? "still in use" : "nobody uses it"}${known(old.quiet_days) ? `, quiet for ${old.quiet_days.toFixed(1)} days` : ""}`, ...users].join("\n") : null],
    ["Source", s.source_error],
  ].filter(([, value]) => value);
  if (same("details", rows)) return;
  at("details").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

/** True if this was shown already: what somebody has selected or opened stays. */
const shown = {};
function same(what, value) {
  const now = JSON.stringify(value);
  return shown[what] === now || ((shown[what] = now), false);
}

function showCharts() {
  const end = state.recent.at(-1)?.at ?? Date.now() / 1000;
  const tail = state.recent.filter((p) => p.at > (state.older.at(-1)?.at ?? 0));
  const points = (state.range === 900 ? state.recent : [...state.older, ...tail]).filter((p) => p.at >= end - state.range);
  // No more than there is: the first minutes would be a stroke at the edge.
  const begin = Math.max(end - state.range, Math.min(points[0]?.at ?? end, end - 60));
  for (const chart of Object.values(charts)) chart.show(points, begin, end, state.range === 900 ? 20 : 200);
}

/** Tells that what is shown isn't so any more, and since when. */
function gone(why) {
  document.body.classList.toggle("stale", Boolean(why));
  at("gone").hidden = !why;
  write(at("gone"), why ?? "");
  if (why) document.title = "no answer – cdc";
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS) });
  return answer.json();
}

async function look() {
  const now = Date.now();
  let status;
  try {
    const after = state.recent.at(-1)?.at ?? 0;
    let history;
    [status, history] = await Promise.all([ask("/status.json"), ask(`/history.json?after=${after}`)]);
    const keep = (points, more, seconds) => {
      const all = [...points.filter((p) => !more.length || p.at < more[0].at), ...more];
      return all.filter((p) => p.at > all.at(-1).at - seconds);
    };
    state.recent = keep(state.recent, history.recent, 900);
    state.older = keep(state.older, history.older, 86400);
    state.lost = history.slot_lost_in_seconds;
    state.answered = now;
  } catch {
    state.missed ??= now;
    const since = new Date(state.answered ?? state.missed);
    return gone(`The daemon has not answered since ${clock.format(since)} (${lasting((now - since) / 1000)}). `
      + (state.status ? "What is below was seen before." : "Nothing is known of it."));
  }
  state.missed = null;
  if (status.error) {
    state.failed ??= now;
    return gone(`Nothing is known since ${clock.format(state.failed)}: ${status.error}`);
  }
  state.failed = null;
  if (status.looked_at !== state.looked) [state.looked, state.changed] = [status.looked_at, now];
  const still = now - state.changed;
  gone(still > STALE_MS ? `The daemon answers, but has not looked at the databases for ${lasting(still / 1000)}.` : null);
  state.status = status;
  document.querySelector("main").hidden = false;
  for (const show of [showHead, showFigures, showSwitch, showIncidents, showCopy, showDetails]) show(status);
  showCharts();
  write(at("looked"), `As of ${clock.format(new Date(status.looked_at))}.`);
}

for (const button of document.querySelectorAll(".ranges button")) {
  button.addEventListener("click", () => {
    state.range = Number(button.dataset.seconds);
    for (const other of document.querySelectorAll(".ranges button")) other.setAttribute("aria-pressed", String(other === button));
    showCharts();
  });
}
write(at("zone"), `Times are those of ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`);

(async () => {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resolve) => {
      setTimeout(resolve, INTERVAL_MS);
      document.addEventListener("visibilitychange", resolve, { once: true });
    });
  }
})();
