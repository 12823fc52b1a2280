// The dashboard: shows what the server tells, and tells the server what the operator wants. Words that come from robots
// and instructions are only ever set as text.
import { Joints, Tempo } from "./charts.js";
import { Depth } from "./depth.js";
import { Live, post, token } from "./live.js";

const EVERYONE = "*";
const FRAME_MS = 50;
const MOST_LINES = 60;
const $ = (id) => document.getElementById(id);
const make = (kind, text, ...classes) => {
  const element = document.createElement(kind);
  element.textContent = text;
  element.classList.add(...classes);
  return element;
};

const joints = new Joints($("joints"));
const tempo = new Tempo($("spark"), $("numbers"));
const depth = new Depth($("thought"), $("depth"), $("depth-words"));
let wanted = null;
let chosen = null;
let isNew = false;

const scheme = location.protocol === "https:" ? "wss" : "ws";
$("example").textContent = `molmoact2 run --robot so101-sim --server ${scheme}://${location.host}`;
const live = new Live({ receive, tell: connection, needToken });
live.watch(null);

function receive(news) {
  if (news.fresh) begin(news);
  chosen = news.chosen;
  $("model").textContent = news.model;
  listSessions(news.sessions);
  const session = news.sessions.find((one) => one.id === chosen);
  showSession(session, news.everyone);
  for (const error of news.errors) addLine($("errors"), error.at, error.text, error.id, error.where);
  if (!session) return;
  joints.add(news);
  tempo.add(news.plans);
  showGuard(news.mode);
  for (const note of news.notes) addLine($("notes"), note.at, note.text);
  for (const { refusal } of news.plans) if (refusal) addLine($("notes"), news.now, refusal[1], refusal[0]);
  if (news.cameras) showCameras(news.cameras);
  if (news.cameras) showThought(news.thought);
  isNew = true;
}

// Another session, or the line is back: everything that is known comes anew.
function begin() {
  joints.clear();
  tempo.clear();
  for (const list of [$("notes"), $("errors")]) list.replaceChildren(make("li", "Nothing yet.", "empty"));
  showThought(null);
  $("cameras").replaceChildren(make("p", "Waiting for pictures", "empty"));
}

function connection(kind, words) {
  $("link").textContent = words;
  $("link").classList.toggle("lost", kind === "lost");
  document.body.classList.toggle("is-stale", kind === "lost");
}

function listSessions(sessions) {
  const list = $("sessions"), signs = { live: "●", stale: "○", over: "–" };
  const options = sessions.map((one) => ({ id: one.id, text: `${signs[one.state]} ${one.embodiment || "robot"} · ${one.client} · ${one.id.slice(0, 6)}` }));
  const known = [...list.options].map((option) => `${option.value} ${option.textContent}`).join();
  if (known !== options.map(({ id, text }) => `${id} ${text}`).join()) {
    list.replaceChildren(...options.map(({ id, text }) => Object.assign(make("option", text), { value: id })));
  }
  list.disabled = !sessions.length;
  if (chosen !== null) list.value = chosen;
  if (wanted !== null && !sessions.some((one) => one.id === wanted)) watch(null);
}

function watch(session) {
  wanted = session;
  live.watch(session);
}

function showSession(session, everyone) {
  const words = { live: "robot is connected", stale: `silent for ${Math.round(session?.silent ?? 0)} s`, over: "session is over" };
  $("dot").className = `dot ${session?.state ?? ""}`;
  $("state").textContent = session ? words[session.state] : "no robot has asked yet";
  document.body.classList.toggle("is-stale", session !== undefined && session.state !== "live");
  $("instruction").textContent = session?.instruction || (session ? "No instruction yet." : "No robot has asked yet.");
  $("by").textContent = session?.ours ? "Instruction, from here" : "Instruction";
  $("give-back").hidden = !session?.ours;
  for (const command of ["hold", "stop"]) {
    document.querySelector(`button.${command}:not(.all)`).setAttribute("aria-pressed", String(session?.wish === command));
  }
  document.querySelector("button.all").setAttribute("aria-pressed", String(everyone === "stop"));
  showBanner(session, everyone);
  for (const button of document.querySelectorAll("[data-command]:not([data-everyone]), #tell *")) button.disabled = !session;
}

function showBanner(session, everyone) {
  const wish = everyone ?? session?.wish, who = everyone ? "All robots are" : "This robot is";
  const done = { hold: "held: it gets no actions until it is resumed.", stop: "stopped: it gets no actions, and its run ends." };
  $("banner").hidden = !wish;
  $("banner").classList.toggle("stop", wish === "stop");
  $("banner-text").textContent = wish ? `${who} ${done[wish]}` : "";
  $("resume-all").hidden = !everyone;
}

function showGuard(mode) {
  $("guard").hidden = mode === null;
  $("guard").dataset.mode = mode ?? "";
  $("mode").textContent = mode ?? "";
}

function showCameras(cameras) {
  const place = $("cameras"), names = cameras.map((camera) => camera.name).join();
  if (place.dataset.names !== names || !place.querySelector("img")) {
    place.dataset.names = names;
    place.replaceChildren(...cameras.map(({ name }) => {
      const figure = make("figure", "", "camera"), image = new Image();
      image.alt = `Camera ${name}`;
      figure.append(image, make("figcaption", name));
      return figure;
    }));
  }
  place.querySelectorAll("img").forEach((image, i) => { image.src = cameras[i].jpeg; });
}

function showThought(thought) {
  $("main").classList.toggle("thinks", Boolean(thought));
  depth.show(thought);
}

// A line of a list, newest first; what is said again and again is counted.
function addLine(list, at, text, code = "", where = "") {
  list.querySelector(".empty")?.remove();
  const said = where ? `${where}: ${text}` : text, time = new Date(1000 * at).toLocaleTimeString([], { hour12: false });
  const newest = list.firstElementChild, isAgain = newest?.dataset.said === `${code} ${said}`;
  const count = isAgain ? Number(newest.dataset.count) + 1 : 1;
  if (isAgain) newest.remove();
  const line = make("li", ""), words = make("span", "");
  Object.assign(line.dataset, { said: `${code} ${said}`, count });
  if (code) words.append(make("code", code));
  words.append(said);
  if (count > 1) words.append(make("b", ` × ${count}`));
  line.append(make("time", time), words);
  list.prepend(line);
  while (list.children.length > MOST_LINES) list.lastChild.remove();
}

// What could not be delivered has to be seen at once; what was delivered is shown by the server's next news.
async function order(path, body, words) {
  $("alert").hidden = true;
  const problem = await post(path, body);
  if (!problem) return true;
  $("alert").textContent = `NOT DELIVERED: ${words}. Reason: ${problem}`;
  $("alert").hidden = false;
  return false;
}

for (const button of document.querySelectorAll("[data-command]")) {
  button.addEventListener("click", () => {
    const session = "everyone" in button.dataset ? EVERYONE : chosen;
    order("dashboard/command", { session, command: button.dataset.command }, button.textContent);
  });
}
$("resume-all").addEventListener("click", () => order("dashboard/command", { session: EVERYONE, command: "resume" }, "Resume all"));
$("tell").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text && (await order("dashboard/instruction", { session: chosen, text }, "the instruction"))) $("text").value = "";
});
$("give-back").addEventListener("click", () => order("dashboard/instruction", { session: chosen, text: null }, "giving back"));
$("sessions").addEventListener("change", () => watch($("sessions").value));

// Asks for the token; resolves when one was given.
function needToken() {
  const dialog = $("ask");
  if (token.get()) {
    $("ask-hint").textContent = "That token is not right.";
    $("ask-hint").classList.add("wrong");
  }
  $("token").value = "";
  dialog.oncancel = (event) => event.preventDefault();
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => { token.set($("token").value.trim()); resolve(); };
  });
}

function draw() {
  joints.draw();
  if (isNew) tempo.draw();
  isNew = false;
}

// Time goes on between news, unless the viewer prefers stillness or does not look.
const isCalm = matchMedia("(prefers-reduced-motion: reduce)");
setInterval(() => {
  if (document.hidden || (isCalm.matches && !isNew)) return;
  requestAnimationFrame(draw);
}, FRAME_MS);

function drawAnew() {
  isNew = true;
  draw();
  depth.draw();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAnew);
new ResizeObserver(drawAnew).observe($("main"));
