// The page in the browser: tabs with addresses, pictures, boxes, answers and maps. Without this script its form is an ordinary one.
// Texts of users and of models reach the page through textContent alone, and pictures through canvases.
"use strict";

const form = document.getElementById("ask");
const SVG = "http://www.w3.org/2000/svg";
const LONGEST = 1024; // pixels of a side of a picture that is shown

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function madeSvg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// -- pictures

class Picture {
  constructor(root) {
    this.root = root;
    this.file = root.querySelector("input[type=file]");
    this.samples = [...root.querySelectorAll(".samples input")];
    this.stage = root.querySelector(".stage");
    this.shown = root.querySelector("canvas.shown");
    this.heat = root.querySelector("canvas.heat");
    this.boxes = root.querySelector("svg.boxes");
    this.blob = null;
    this.size = null; // width and height in pixels; null where the browser cannot show the picture
    this.ready = Promise.resolve(); // once the chosen picture is there
  }

  get sample() {
    return this.samples.find((one) => one.checked);
  }

  async take(blob) {
    this.blob = blob;
    this.size = null;
    const bitmap = blob && (await createImageBitmap(blob).catch(() => null));
    if (this.blob !== blob) return; // another one was chosen meanwhile
    this.stage.hidden = !bitmap;
    if (bitmap) {
      const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
      this.size = [bitmap.width, bitmap.height];
      this.shown.width = Math.max(1, Math.round(bitmap.width * scale));
      this.shown.height = Math.max(1, Math.round(bitmap.height * scale));
      this.shown.getContext("2d").drawImage(bitmap, 0, 0, this.shown.width, this.shown.height);
      this.shown.setAttribute("aria-label", this.sample ? this.sample.nextElementSibling.alt : "The picture");
      this.boxes.setAttribute("viewBox", `0 0 ${bitmap.width} ${bitmap.height}`);
    }
    forget();
  }

  choose() {
    this.ready = this.chosen();
  }

  async chosen() {
    if (this.file.files.length) return this.take(this.file.files[0]);
    const sample = this.sample;
    if (!sample) return this.take(null);
    const answer = await fetch(sample.nextElementSibling.src);
    if (this.sample === sample) await this.take(await answer.blob());
  }

  // given: boxes that the user states; found: boxes of the answers, the best one first and drawn last.
  draw(given, found) {
    const rect = ([left, top, right, bottom], kind, number) => {
      const size = { width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
      return madeSvg("rect", { x: left, y: top, ...size, class: kind, "data-number": number });
    };
    const answers = found.map((box, number) => rect(box, number ? "found" : "found best", number));
    this.boxes.replaceChildren(...given.map((box) => rect(box, "given", "")), ...answers.reverse());
  }

  // Make one box of the answers stand out; null: none.
  point(number) {
    this.boxes.classList.toggle("pointed", number !== null);
    for (const rect of this.boxes.children) rect.classList.toggle("pointed", rect.dataset.number === String(number));
  }

  // values: rows of numbers, as much as each patch matters; null: no map. place: their edges, in pixels of the picture.
  map(values, place) {
    this.heat.hidden = !values;
    this.stage.classList.toggle("mapped", Boolean(values));
    if (!values || !this.size) return;
    const [left, top, right, bottom] = place.map((edge, number) => (100 * edge) / this.size[number % 2]);
    Object.assign(this.heat.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    const [rows, columns] = [values.length, values[0].length];
    const highest = Math.max(...values.flat(), 1e-12);
    const image = new ImageData(columns, rows);
    values.flat().forEach((value, place) => {
      const share = Math.max(0, value) / highest;
      image.data.set([255, 200 - 170 * share, 40, 215 * share ** 1.3], 4 * place);
    });
    this.heat.width = columns;
    this.heat.height = rows;
    this.heat.getContext("2d").putImageData(image, 0, 0);
  }

  // The point of the picture, in its pixels, at a pointer.
  at(event) {
    const edges = this.stage.getBoundingClientRect();
    const share = [(event.clientX - edges.left) / edges.width, (event.clientY - edges.top) / edges.height];
    return share.map((one, axis) => Math.round(Math.min(1, Math.max(0, one)) * this.size[axis]));
  }
}

const pictures = [...form.querySelectorAll(".picture")].map((root) => new Picture(root));

for (const picture of pictures) {
  picture.file.addEventListener("change", () => {
    picture.samples.forEach((sample) => (sample.checked = false));
    picture.choose();
  });
  for (const sample of picture.samples) {
    sample.addEventListener("change", () => {
      picture.file.value = "";
      picture.choose();
    });
  }
  const over = (on) => picture.root.querySelector(".drop").classList.toggle("over", on);
  picture.root.addEventListener("dragover", (event) => (event.preventDefault(), over(true)));
  picture.root.addEventListener("dragleave", () => over(false));
  picture.root.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    if (!event.dataTransfer.files.length) return;
    const one = new DataTransfer();
    one.items.add(event.dataTransfer.files[0]);
    picture.file.files = one.files;
    picture.file.dispatchEvent(new Event("change"));
  });
}

// -- tabs

class Panel {
  constructor(root) {
    this.root = root;
    this.tab = document.getElementById(`${root.id}-tab`);
    this.fields = root.querySelector(".fields");
    this.answers = root.querySelector(".answers");
    this.said = root.querySelector(".said");
    this.button = root.querySelector(".ask");
    this.why = root.querySelector(".why");
    this.numImages = Number(root.dataset.images);
    this.forget();
  }

  forget() {
    this.asked?.abort();
    this.found = []; // boxes of the answers
    this.explanation = null;
    this.word = null; // whose map is shown: its number, -1 for the whole answer, null for no map
  }

  field(name) {
    return this.fields.querySelector(`[name="${name}"]`);
  }

  get given() {
    const field = this.field("boxes") ?? this.field("named_boxes");
    return field ? linesOf(field).map((line) => numbersOf(line)).filter((box) => box.length === 4) : [];
  }

  draw() {
    pictures[0].draw(this.given, this.found);
    pictures[0].stage.classList.toggle("drawable", Boolean(this.field("boxes") ?? this.field("named_boxes")));
    pictures.forEach((picture, number) => {
      const map = this.word === null ? null : this.explanation.maps[number];
      picture.map(map ? (map.per_word?.[this.word] ?? map.values) : null, map?.place);
    });
    const boxes = this.root.querySelector("[data-do=sample-boxes]");
    if (boxes) boxes.hidden = !pictures[0].sample?.dataset.boxes;
  }
}

const panels = [...form.querySelectorAll("[role=tabpanel]")].map((root) => new Panel(root));
let current = panels.find((panel) => !panel.root.hidden);

function show(panel) {
  current = panel;
  for (const one of panels) {
    const on = one === panel;
    one.root.hidden = !on;
    one.fields.disabled = !on;
    one.button.type = on ? "submit" : "button"; // Enter presses the first button that submits, if it is enabled
    one.tab.setAttribute("aria-selected", on);
    one.tab.tabIndex = on ? 0 : -1;
  }
  pictures.forEach((picture, place) => {
    picture.root.hidden = picture.root.disabled = place >= panel.numImages;
  });
  pictures[0].root.parentElement.classList.toggle("two", panel.numImages > 1);
  form.action = panel.tab.href;
  document.title = `${panel.root.dataset.title} · vlc`;
  panel.draw();
}

function visit(panel) {
  if (panel === current) return;
  history.pushState(null, "", panel.tab.href);
  show(panel);
}

// Answers are about the pictures that were there.
function forget() {
  for (const panel of panels) {
    panel.forget();
    panel.answers.replaceChildren();
    panel.said.textContent = "";
    complain(panel, {});
    if (panel.why) panel.why.hidden = true;
  }
  current.draw();
}

window.addEventListener("popstate", () => {
  show(panels.find((panel) => new URL(panel.tab.href).pathname === location.pathname) ?? panels[0]);
});

panels.forEach((panel, place) => {
  panel.tab.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new window
    event.preventDefault();
    visit(panel);
  });
  panel.tab.addEventListener("keydown", (event) => {
    const last = panels.length - 1;
    const next = { ArrowRight: place === last ? 0 : place + 1, ArrowLeft: place || panels.length, Home: 0, End: last }[event.key];
    if (event.key === "ArrowLeft") panels[place ? place - 1 : last].tab.focus();
    else if (next !== undefined) panels[next].tab.focus();
    else if (event.key === " ") visit(panel);
    else return;
    event.preventDefault();
  });
});

// -- boxes, as lines of a field

const linesOf = (field) => field.value.split("\n").map((line) => line.trim()).filter(Boolean);
const numbersOf = (line) => line.replace(/^.*:/, "").split(/[\s,;]+/).filter(Boolean).map(Number).filter(Number.isFinite);

function addBox(field, box) {
  const name = field.name === "named_boxes" ? `thing${linesOf(field).length + 1}: ` : "";
  field.value = [...linesOf(field), name + box.join(", ")].join("\n");
  current.draw();
}

pictures[0].stage.addEventListener("pointerdown", (down) => {
  const field = current.field("boxes") ?? current.field("named_boxes");
  if (!field || !pictures[0].size || down.button) return;
  const picture = pictures[0];
  const start = picture.at(down);
  const rect = madeSvg("rect", { class: "given" });
  const boxTo = (event) => {
    const end = picture.at(event);
    return [Math.min(start[0], end[0]), Math.min(start[1], end[1]), Math.max(start[0], end[0]), Math.max(start[1], end[1])];
  };
  const move = (event) => {
    const [left, top, right, bottom] = boxTo(event);
    for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) rect.setAttribute(key, value);
  };
  const up = (event) => {
    const [left, top, right, bottom] = boxTo(event);
    stop();
    if (right > left && bottom > top) addBox(field, [left, top, right, bottom]);
  };
  const stop = () => {
    rect.remove();
    picture.stage.removeEventListener("pointermove", move);
    picture.stage.removeEventListener("pointerup", up);
    picture.stage.removeEventListener("pointercancel", stop);
  };
  picture.boxes.append(rect);
  picture.stage.setPointerCapture(down.pointerId);
  picture.stage.addEventListener("pointermove", move);
  picture.stage.addEventListener("pointerup", up);
  picture.stage.addEventListener("pointercancel", stop);
});

form.addEventListener("input", (event) => {
  if (["boxes", "named_boxes"].includes(event.target.name)) current.draw();
});

// -- problems, beside the fields that they name

// problems: texts by field; those of no field stand below the button.
function complain(panel, problems) {
  const places = [...form.querySelectorAll(".picture .problem"), ...panel.fields.querySelectorAll(".problem")];
  const general = places.pop();
  const rest = { ...problems };
  let first = null;
  for (const place of places) {
    const text = rest[place.dataset.field] ?? "";
    delete rest[place.dataset.field];
    const control = document.getElementById(place.id.replace(/-problem$/, ""));
    place.textContent = text;
    place.hidden = !text;
    if (text) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
    first ??= text ? control : null;
  }
  general.textContent = Object.values(rest).join(" ");
  general.hidden = !general.textContent;
  first?.focus();
}

// -- asking

function bar(share) {
  return madeSvg("svg", { class: "bar", "aria-hidden": "true" }, madeSvg("rect", { width: `${100 * share}%`, height: "100%" }));
}

// A value for reading, and its share of a bar; null: its unit has no bar.
function read(value, unit) {
  if (unit === "probability") return [`${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`, value];
  return unit === "box" ? ["", null] : [`${unit} ${value.toFixed(3)}`, null];
}

function summary(answer) {
  const [{ answer: name, value }] = answer.choices;
  return `Answer: ${name || "(nothing)"}${answer.unit === "probability" ? ` (${read(value, answer.unit)[0]})` : ""}`;
}

function choiceItem(panel, { answer: name, value, box }, unit) {
  const [text, share] = read(value, unit);
  const label = made(box ? "button" : "span", { className: "name", textContent: name || "(nothing)" });
  if (box) {
    label.type = "button";
    const number = panel.found.push(box) - 1;
    for (const [kind, on] of [["mouseenter", true], ["focus", true], ["mouseleave", false], ["blur", false]]) {
      label.addEventListener(kind, () => pictures[0].point(on ? number : null));
    }
  }
  return made("li", {}, label, share === null ? null : bar(share), made("span", { className: "value", textContent: text }));
}

function answerSection(panel, answer) {
  const items = answer.choices.map((choice) => choiceItem(panel, choice, answer.unit));
  const title = answer.about ? made("h2", { textContent: answer.about }) : null;
  const section = made("section", { className: "answer" }, title, made("ol", {}, ...items.splice(0, items.length > 8 ? 5 : 8)));
  if (items.length) section.append(made("details", {}, made("summary", { textContent: `${items.length} more` }), made("ol", {}, ...items)));
  return section;
}

// What a panel's fields say, and the problems that need no server: [values, problems].
function filledIn(panel) {
  const [values, problems] = [{}, {}];
  for (const field of panel.fields.querySelectorAll("input[name], textarea[name], select[name]")) {
    const lines = linesOf(field);
    if (!lines.length) {
      if (field.required) problems[field.name] = "Please fill this in.";
    } else if (field.name === "boxes" || field.name === "named_boxes") {
      const wrong = lines.findIndex((line) => numbersOf(line).length !== 4);
      if (wrong >= 0) problems[field.name] = `Line ${wrong + 1} should have four numbers: left, top, right, bottom.`;
      const named = lines.map((line) => [line.split(":")[0].trim(), numbersOf(line)]);
      values[field.name] = field.name === "boxes" ? lines.map(numbersOf) : Object.fromEntries(named);
    } else if (field.name === "history") {
      values.history = lines.map((line) => line.split("|").map((one) => one.trim()));
      const wrong = values.history.findIndex((turn) => turn.length !== 2);
      if (wrong >= 0) problems.history = `Line ${wrong + 1} should have a question and its answer, with | between them.`;
    } else {
      values[field.name] = field.tagName === "TEXTAREA" ? lines : field.value.trim();
    }
  }
  pictures.slice(0, panel.numImages).forEach((picture, place) => {
    if (!picture.blob && panel.root.dataset.needsImages) problems[`image${place}`] = "Please choose a picture.";
  });
  return [values, problems];
}

const key = document.getElementById("key"); // there is one where the service wants it
if (key) {
  key.value = sessionStorage.getItem("key") ?? "";
  key.addEventListener("input", () => sessionStorage.setItem("key", key.value));
}
const headers = () => (key?.value ? { Authorization: `Bearer ${key.value}` } : {});

// The parts of a form for a value: lists of texts have a part for each, and other lists are JSON.
function partsOf(name, value) {
  if (typeof value === "string") return [value];
  return ["options", "candidates"].includes(name) ? value : [JSON.stringify(value)];
}

// Asks the server. Returns its answer, or throws problems by field.
async function asked(address, panel, values) {
  panel.asked?.abort();
  panel.asked = new AbortController();
  const body = new FormData();
  for (const picture of pictures.slice(0, panel.numImages)) if (picture.blob) body.append("images", picture.blob, picture.blob.name ?? "picture");
  for (const [name, value] of Object.entries(values)) for (const part of partsOf(name, value)) body.append(name, part);
  let answer;
  try {
    answer = await fetch(address, { method: "POST", body, headers: headers(), signal: panel.asked.signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : { "": "The server cannot be reached." };
  }
  const said = await answer.json();
  if (!answer.ok) throw { [fieldOf(said.field)]: said.detail };
  return said;
}

// The name on this page of a field that the server names. Of two pictures it means the one that the browser cannot show either.
function fieldOf(name = "") {
  return name === "images" ? `image${Math.max(0, pictures.findIndex((picture) => picture.blob && !picture.size))}` : name;
}

async function busy(button, work) {
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-busy");
  }
}

form.noValidate = true;
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const panel = current;
  busy(panel.button, () => submitted(panel));
});

async function submitted(panel) {
  await Promise.all(pictures.map((picture) => picture.ready));
  const [values, problems] = filledIn(panel);
  complain(panel, problems);
  panel.said.textContent = "";
  if (Object.keys(problems).length) return;
  try {
    const said = await asked(panel.root.dataset.ask, panel, values);
    panel.forget();
    panel.question = values;
    answered(panel, said);
  } catch (problem) {
    if (problem.name === "AbortError") return;
    if (problem instanceof Error) throw problem;
    panel.forget();
    panel.answers.replaceChildren();
    if (panel.why) panel.why.hidden = true;
    complain(panel, problem);
  }
  if (panel === current) panel.draw();
}

function answered(panel, said) {
  if (panel.root.dataset.search) {
    panel.answers.replaceChildren(strip(panel, said));
    panel.said.textContent = `${said.results.length} found`;
    return;
  }
  const { answers } = said.results[0];
  panel.answers.replaceChildren(...answers.map((one) => answerSection(panel, one)));
  panel.said.textContent = summary(answers[0]);
  if (panel.why) {
    panel.why.hidden = false;
    panel.why.querySelector(".words").hidden = panel.why.querySelector(".help").hidden = true;
  }
}

// -- results of a search

async function drawFrom(address, canvas) {
  const answer = await fetch(address, { headers: headers() });
  if (!answer.ok) return;
  const bitmap = await createImageBitmap(await answer.blob());
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

function strip(panel, { kind, results }) {
  const shown = ({ number, source, text, score }) => {
    const words = made("p", { textContent: text || source });
    const value = made("p", { className: "value", textContent: score.toFixed(3) });
    if (kind !== "images") return made("li", {}, words, value);
    const canvas = made("canvas", { ariaLabel: text || source, role: "img" });
    drawFrom(`${panel.root.dataset.ask}/images/${number}`, canvas);
    return made("li", {}, canvas, words, value);
  };
  return made("ol", { className: kind === "images" ? "strip" : "found" }, ...results.map(shown));
}

// -- maps of what mattered

// word: its number; -1: the whole answer.
function showMap(panel, word) {
  const { maps, tokens } = panel.explanation;
  panel.word = word;
  [...panel.why.querySelectorAll(".words button")].forEach((button, number) => button.setAttribute("aria-pressed", number === word + 1));
  const what = word < 0 || !maps[0].per_word ? "the answer" : `“${tokens[word].replace(/^##/, "")}”`;
  panel.why.querySelector(".help").textContent = `${maps.length > 1 ? "The pictures show" : "The picture shows"} how much each part matters for ${what}.`;
  panel.draw();
}

function showWords(panel) {
  const { tokens, words } = panel.explanation;
  const highest = Math.max(...words, 1e-12);
  const buttons = ["the answer", ...tokens].map((token, number) => {
    const piece = number > 0 && token.startsWith("##"); // of the word before it
    const button = made("button", { type: "button", className: piece ? "piece" : "", textContent: piece ? token.slice(2) : token });
    if (number) button.style.setProperty("--weight", Math.max(0, words[number - 1]) / highest);
    button.addEventListener("click", () => showMap(panel, number - 1));
    button.addEventListener("focus", () => showMap(panel, number - 1));
    return button;
  });
  const list = panel.why.querySelector(".words");
  list.replaceChildren(...buttons);
  list.hidden = panel.why.querySelector(".help").hidden = false;
}

for (const panel of panels.filter((one) => one.why)) {
  const button = panel.why.querySelector("[data-do=explain]");
  button.addEventListener("click", () =>
    busy(button, async () => {
      const problem = panel.why.querySelector(".problem");
      problem.hidden = true;
      const head = panel.root.dataset.ask.split("/v1/")[1];
      const values = { ...panel.question, head, method: panel.why.querySelector("select").value };
      try {
        panel.explanation = await asked(`${panel.root.dataset.ask.split("/v1/")[0]}/v1/explain`, panel, values);
        showWords(panel);
        showMap(panel, -1);
      } catch (problems) {
        if (problems.name === "AbortError") return;
        if (problems instanceof Error) throw problems;
        problem.textContent = Object.values(problems).join(" ");
        problem.hidden = false;
      }
    }),
  );
}

for (const button of form.querySelectorAll("[data-do=sample-boxes]")) {
  button.addEventListener("click", () => {
    const field = current.field("boxes") ?? current.field("named_boxes");
    for (const line of pictures[0].sample.dataset.boxes.split("\n")) addBox(field, numbersOf(line));
  });
}

document.documentElement.classList.add("scripts");
show(current);
for (const picture of pictures) picture.choose(); // what the browser or the server remembers
