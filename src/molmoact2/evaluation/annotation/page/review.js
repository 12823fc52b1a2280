// Keeps a decision per episode, also across reloads, and saves them as the file that --apply-review reads.
const about = JSON.parse(document.body.dataset.about);
const place = "molmoact2 " + about.dataset + " " + about.keys.join("").slice(0, 256);
const entries = [...document.querySelectorAll(".entry")];
const decisions = (() => {
  try { return JSON.parse(localStorage.getItem(place)) || {}; } catch { return {}; }
})();

const wordsOf = (entry) => entry.querySelector("textarea");
const isWhole = (entry) => decisions[entry.dataset.key]?.decision === "reject" || wordsOf(entry).value.trim() !== "";

const show = (entry) => {
  const decision = decisions[entry.dataset.key]?.decision;
  if (decision) entry.dataset.decision = decision; else delete entry.dataset.decision;
  wordsOf(entry).readOnly = decision !== "edit";
  for (const button of entry.querySelectorAll("[data-decision]"))
    button.setAttribute("aria-pressed", String(button.dataset.decision === decision));
  entry.querySelector(".problem").textContent = decision && !isWhole(entry) ? "Write an instruction, or reject." : "";
  const decided = entries.filter((one) => decisions[one.dataset.key] && isWhole(one)).length;
  document.querySelector(".count").textContent = `${decided} of ${entries.length} decided`;
};
const keep = (entry) => {
  try { localStorage.setItem(place, JSON.stringify(decisions)); } catch { /* a private window: saving still works */ }
  show(entry);
};
const decide = (entry, decision) => {
  const words = wordsOf(entry);
  if (decisions[entry.dataset.key]?.decision === decision) delete decisions[entry.dataset.key];
  else decisions[entry.dataset.key] = { decision };
  if (decision !== "edit") words.value = words.defaultValue;
  else if (decisions[entry.dataset.key]) decisions[entry.dataset.key].instruction = words.value.trim();
  keep(entry);
  if (decision === "edit" && !words.readOnly) words.focus();
};

for (const entry of entries) {
  const before = decisions[entry.dataset.key];
  if (before?.decision === "edit") wordsOf(entry).value = before.instruction;
  for (const button of entry.querySelectorAll(".choices button"))
    button.addEventListener("click", () => decide(entry, button.dataset.decision));
  wordsOf(entry).addEventListener("input", () => {
    decisions[entry.dataset.key].instruction = wordsOf(entry).value.replace(/\s+/g, " ").trim();
    keep(entry);
  });
  show(entry);
}

const saved = () => JSON.stringify({
  dataset: about.dataset,
  decisions: entries.filter((entry) => decisions[entry.dataset.key] && isWhole(entry)).map((entry) => ({
    key: entry.dataset.key, episode_index: Number(entry.dataset.episode), ...decisions[entry.dataset.key],
  })),
}, null, 2);
document.querySelector(".export").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([saved() + "\n"], { type: "application/json" }));
  link.download = "decisions.json";
  link.click();
});
document.querySelector(".filter").addEventListener("click", (event) => {
  const only = document.body.classList.toggle("undecided-only");
  event.target.setAttribute("aria-pressed", String(only));
});

let current = -1;
const go = (step) => {
  current = Math.max(0, Math.min(entries.length - 1, current + step));
  entries[current]?.focus();
  entries[current]?.scrollIntoView({ block: "start" });
};
document.addEventListener("focusin", (event) => {
  const entry = event.target.closest(".entry");
  if (entry) current = entries.indexOf(entry);
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const decision = { a: "accept", e: "edit", r: "reject" }[event.key];
  if (event.key === "j") go(1);
  if (event.key === "k") go(-1);
  if (decision && entries[current]) { event.preventDefault(); decide(entries[current], decision); }
});
