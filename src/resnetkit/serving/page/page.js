// The page: files to the server one by one, answers as bars. Text only ever enters it as text.
import { record } from "./record.js";
import { WORDS } from "./words.js";

const byId = (id) => document.getElementById(id);
const AT_ONCE = 2, TRIES = 12, SHOWN = 100, LETTERS = 1000;
const items = [];
let language = localStorage.getItem("language");
if (!(language in WORDS)) language = navigator.language.startsWith("zh") ? "zh" : "en";
let token = "", models = [], running = 0, answered = 0, recording = null;
const chosen = () => models.find((each) => each.name === byId("model").value) || models[0];
const kind = () => (chosen()?.accepts[0] || "image/*").split("/")[0]; // image, audio or text
const words = () => ({ ...WORDS[language], ...WORDS[language][kind()] });

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function speak() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = words()[element.dataset.word];
  const button = byId("language");
  button.textContent = words().other;
  button.lang = language === "en" ? "zh" : "en";
  if (recording) byId("record").textContent = words().stop;
  items.forEach(show);
  facts();
  tell();
}

function tell() {
  const waiting = items.filter((item) => item.state === "waiting" || item.state === "asked").length;
  byId("status").textContent = waiting ? words().waiting(waiting) : answered ? words().done(answered) : "";
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (response.status === 401) {
    byId("login").hidden = false;
    byId("token").focus();
  }
  return response;
}

async function begin() {
  try {
    const response = await ask("info");
    if (!response.ok) return;
    models = (await response.json()).models;
  } catch {
    byId("status").textContent = words().offline;
    return;
  }
  byId("login").hidden = true;
  byId("model").replaceChildren(...models.map((each) => make("option", { value: each.name, textContent: each.name })));
  byId("which").hidden = models.length < 2;
  choose();
  next();
}

function choose() {
  const model = chosen();
  byId("files").accept = byId("snapshot").accept = model.accepts[0];
  byId("photo").hidden = kind() !== "image";
  byId("record").hidden = kind() !== "audio";
  byId("writing").hidden = kind() !== "text";
  if (kind() !== "audio") recording?.stop();
  byId("title").textContent = document.title = model.name;
  byId("overlay").disabled = !model.overlay;
  // boxes and masks say little until they are drawn
  byId("overlay").checked = model.overlay && (byId("overlay").checked || ["detect", "segment", "instances"].includes(model.task));
  for (const item of items.filter((each) => each.kind === kind())) again(item);
  speak();
}

function input({ width, size, seconds, rate, length }) {
  return seconds ? `${seconds} s, ${rate} Hz` : length ? `${length}` : `${width || size} × ${size} px`;
}

function facts() {
  const model = chosen();
  if (!model) return;
  const percent = (value) => (100 * value).toFixed(1);
  const scores = Object.entries(model.scores).filter(([name, each]) => !name.includes("/") && each.value !== null)
    .map(([name, each]) => `${name} ${percent(each.value)} % (${percent(each.low)}–${percent(each.high)}, n = ${each.n})`);
  const rows = {
    task: model.task, network: model.variant, classes: model.classes.slice(0, SHOWN).join(", "), scores: scores.join("; ") || "–",
    input: input(model.preprocess), backend: model.backend,
  };
  byId("facts").replaceChildren(...Object.entries(rows).flatMap(([word, text]) =>
    [make("dt", { textContent: words()[word] }), make("dd", { textContent: text })]));
}

function take(files) {
  for (const file of files) {
    const element = make("li", { className: "answer" });
    const item = { file, kind: kind(), state: "waiting", tries: 0, url: URL.createObjectURL(file), element };
    if (item.kind === "text") file.slice(0, 4 * LETTERS).text().then((text) => { item.text = text.slice(0, LETTERS); show(item); });
    items.unshift(item);
    byId("answers").prepend(item.element);
    show(item);
  }
  while (items.length > SHOWN) {
    const old = items.pop();
    URL.revokeObjectURL(old.url);
    old.element.remove();
  }
  next();
}

function again(item) {
  Object.assign(item, { state: "waiting", tries: 0 });
  show(item);
  next();
}

function next() {
  tell();
  while (running < AT_ONCE && models.length) {
    const item = items.findLast((each) => each.state === "waiting");
    if (!item) return;
    item.state = "asked";
    running += 1;
    answer(item).finally(() => { running -= 1; next(); });
  }
}

async function answer(item) {
  const overlay = byId("overlay").checked;
  const query = new URLSearchParams({ model: chosen().name, overlay });
  const type = item.file.type.startsWith(`${item.kind}/`) ? item.file.type : "application/octet-stream";
  try {
    const response = await ask(`predict?${query}`, { method: "POST", headers: { "content-type": type }, body: item.file });
    const told = await response.json();
    if ([429, 503].includes(response.status) && (item.tries += 1) < TRIES) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers.get("retry-after") || 1)));
      if (item.state === "asked") item.state = "waiting";
      return;
    }
    if (item.state !== "asked") return; // asked anew in the meantime
    if (response.ok) Object.assign(item, { state: "done", row: told.answers[0] });
    else Object.assign(item, { state: "failed", code: told.code, error: told.error });
  } catch {
    Object.assign(item, { state: "failed", code: "", error: words().offline });
  }
  answered += 1;
  show(item);
}

function ranked(row) {
  const keys = Object.keys(row).filter((key) => /^label(_\d+)?$/.test(key));
  return keys.map((key) => [row[key], row[key.replace("label", "score")]]);
}

function bar([label, score]) {
  const percent = `${(100 * score).toFixed(1)} %`;
  const meter = make("progress", { max: 1, value: score });
  meter.setAttribute("aria-label", `${label} ${percent}`);
  return [make("dt", {}, make("span", { textContent: label }), make("span", { textContent: percent })), make("dd", {}, meter)];
}

function doubts(row) {
  const found = [];
  if (row.uncertain) found.push(row.set ? `${words().unsure}: ${words().among} ${row.set.replaceAll("|", ", ")}` : words().unsure);
  if (row.novel) found.push(words().novel);
  return found.map((text) => make("p", { className: "doubt", textContent: text }));
}

function given(item) {
  if (item.kind === "text") return make("blockquote", { textContent: item.text || "" });
  if (item.kind === "audio") {
    const player = make("audio", { src: item.url, controls: true });
    player.setAttribute("aria-label", words().sound(item.file.name));
    return player;
  }
  const image = make("img", { src: item.row?.overlay || item.url, alt: words().picture(item.file.name) });
  if (item.row?.overlay) image.alt = item.row.found ? words().drawn(item.file.name) : words().looked(item.row.label);
  image.onerror = () => image.replaceWith(make("p", { className: "small", textContent: words().unseen }));
  return image;
}

function show(item) {
  const parts = [given(item), make("p", { className: "name", textContent: item.file.name })];
  if (item.state === "failed") {
    parts.push(make("p", { className: "error", textContent: words().trouble[item.code] || item.error }));
  } else if (item.state === "done") {
    parts.push(...doubts(item.row));
    if ("labels" in item.row) parts.push(make("p", { textContent: `${words().present}: ${item.row.labels.replaceAll("|", ", ") || words().none}` }));
    const found = item.row.found?.map((each) => [each.label, each.score ?? each.share]);
    if (found && !found.length) parts.push(make("p", { textContent: words().nothing }));
    parts.push(make("dl", {}, ...(found || ranked(item.row)).slice(0, SHOWN).flatMap(bar)));
  }
  item.element.setAttribute("aria-busy", String(item.state === "waiting" || item.state === "asked"));
  item.element.replaceChildren(...parts);
}

const fitting = (list) => [...list].filter((file) => !file.type || file.type.startsWith(`${kind()}/`) || file.type === "application/octet-stream");

byId("files").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
byId("snapshot").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
byId("model").addEventListener("change", choose);
byId("overlay").addEventListener("change", () => items.forEach((item) => {
  if (byId("overlay").checked) { if (item.state === "done") again(item); }
  else if (item.row) { delete item.row.overlay; show(item); }
}));
byId("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
  speak();
});
byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  begin();
});
addEventListener("paste", (event) => take(fitting(event.clipboardData.files)));
addEventListener("dragover", (event) => { event.preventDefault(); byId("place").classList.add("over"); });
addEventListener("dragleave", () => byId("place").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  byId("place").classList.remove("over");
  take(event.dataTransfer.files);
});
byId("writing").addEventListener("submit", (event) => {
  event.preventDefault();
  take([new File([byId("text").value], "", { type: "text/plain" })]);
  byId("text").value = "";
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("writing").requestSubmit();
});

byId("record").addEventListener("click", async () => {
  if (!navigator.mediaDevices) { byId("snapshot").click(); return; } // not a secure context: the phone's own recorder
  if (recording) { recording.stop(); return; }
  try {
    recording = await record();
  } catch {
    byId("status").textContent = words().nomicrophone;
    return;
  }
  byId("record").textContent = words().stop;
  byId("status").textContent = words().recording;
  const file = await recording.file.catch(() => null);
  recording = null;
  byId("record").textContent = words().record;
  if (file && kind() === "audio") take([file]); // not if another kind of model was chosen meanwhile
  else if (!file) byId("status").textContent = words().nomicrophone;
});

let stream = null;
function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("camera").close();
}
byId("photo").addEventListener("click", async () => {
  if (!navigator.mediaDevices) { byId("snapshot").click(); return; } // not a secure context: the phone's own camera
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    byId("status").textContent = words().nocamera;
    return;
  }
  byId("camera").showModal();
  byId("view").srcObject = stream;
  byId("view").play();
});
byId("leave").addEventListener("click", closeCamera);
byId("camera").addEventListener("cancel", closeCamera);
byId("shoot").addEventListener("click", () => {
  const video = byId("view");
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => { if (blob) take([new File([blob], "photo.jpg", { type: "image/jpeg" })]); }, "image/jpeg", 0.92);
  closeCamera();
});

speak();
begin();
