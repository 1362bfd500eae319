"use strict";
// An image goes to POST predict; what comes back stands above what came before. A second request asks where it looks, so
// that the first is as fast as without. Text is set as text, never as markup.
const MOST_SHOWN = 10; // classes of an answer
const MOST_KEPT = 50; // answers on the page
const input = document.getElementById("image"), drop = document.querySelector(".drop");
const answers = document.getElementById("answers"), news = document.getElementById("news");
const {most, heads} = document.querySelector("form").dataset; // bytes; "" where there are several heads
const looks = document.getElementById("looks"); // null where nothing says where it looks
document.getElementById("address").textContent = location.origin;

function make(name, text = "", kind = "") {
  const element = document.createElement(name);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function percent(share) {
  return share > 0 && share < 1 ? Math.min(Math.max(share * 100, 0.1), 99.9).toFixed(1) + "%" : 100 * share + "%";
}

function picture(file) {
  const image = make("img");
  image.alt = "";
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => { // a kind of file that multitl reads and the browser does not
    URL.revokeObjectURL(image.src);
    image.replaceWith(make("div", "no preview", "gone"));
  };
  image.src = URL.createObjectURL(file);
  return image;
}

function shares(said) {
  const table = make("table", "", "shares"), body = table.createTBody();
  const caption = table.createCaption();
  caption.textContent = "Probabilities, the highest first";
  caption.className = "hidden";
  const given = new Set([said.predicted].flat());
  for (const [name, share] of Object.entries(said.probabilities).sort((a, b) => b[1] - a[1]).slice(0, MOST_SHOWN)) {
    const row = body.insertRow(), head = make("th", name), meter = make("meter");
    head.scope = "row";
    head.dir = "auto";
    if (given.has(name)) row.className = "given";
    meter.value = share;
    meter.setAttribute("aria-label", name);
    row.append(head);
    row.insertCell().append(meter);
    row.append(make("td", percent(share), "number"));
  }
  return table;
}

function headline(said) {
  if ("value" in said) return String(Number(said.value.toPrecision(6)));
  return [said.predicted].flat().join(", ") || "no label";
}

function each(found) { // head and what it says; of one head, which has no name, or of several
  return heads === undefined ? [["", found]] : Object.entries(found);
}

function parts(found) {
  return each(found).flatMap(([name, said]) => {
    const value = make("p", headline(said), "value");
    value.dir = "auto";
    return [...(name ? [make("p", name, "head")] : []), value, ...doubts(said), ...("probabilities" in said ? [shares(said)] : [])];
  });
}

function doubts(said) { // what the model does not know
  const found = [];
  if (said.unknown) found.push(make("p", `Unknown: ${percent(said.familiarity)} of usual images are as strange to the model.`, "unknown"));
  if (said.plausible?.length > 1) found.push(make("p", "Plausible: " + said.plausible.join(", "), "took"));
  return found;
}

function words(found) {
  return each(found).map(([name, said]) =>
    (name ? name + ": " : "") + headline(said) + ("confidence" in said ? ", " + percent(said.confidence) : "") + (said.unknown ? ", unknown" : "")).join("; ");
}

function maps(found) { // drawn by the server over what the network was given
  return each(found).flatMap(([name, said]) => said.maps.map(map => {
    const figure = make("figure"), image = make("img"), isNumber = "value" in map;
    const what = [name, isNumber ? "" : map.class].filter(Boolean).join(": ") || "the number";
    const how = isNumber ? "orange raises it, blue lowers it" : "orange speaks for it, blue against it";
    const proof = map.error === null ? "" : `, sums to within ${map.error.toExponential(1)}`;
    image.alt = `Where it sees ${what}`;
    image.src = map.picture;
    figure.append(image, make("figcaption", `Where it sees ${what}: ${how} (${map.kind}${proof})`));
    return figure;
  }));
}

async function ask(file, query = "") {
  if (file.size > Number(most)) throw Object.assign(new Error("The image is too large."), {fix: `send at most ${most} bytes`});
  const began = performance.now();
  const response = await fetch("predict" + query, {method: "POST", headers: {"Content-Type": "application/octet-stream"}, body: file});
  const found = await response.json(), took = performance.now() - began;
  if (!response.ok) throw Object.assign(new Error(found.error.problem), found.error);
  const model = /model;dur=([\d.]+)/.exec(response.headers.get("Server-Timing") || "");
  return {found, took: `${Math.round(took)} ms` + (model ? `, the network ${Math.round(model[1])} of them` : "")};
}

function notice(error) {
  const box = make("div", "", "notice");
  box.append(make("strong", error.fix ? error.message : "The server does not answer."));
  box.append(make("p", error.fix ? `To mend: ${error.fix}` : "It may have been stopped."));
  return box;
}

async function look(file, pictures) {
  try {
    pictures.append(...maps((await ask(file, "?explain=picture")).found));
  } catch (error) {
    pictures.append(notice(error));
  }
}

async function show(file) {
  const item = make("li", "", "answer"), pictures = make("div", "", "seen"), column = make("div");
  let isAnswered = false;
  pictures.append(picture(file));
  item.append(pictures, column);
  column.append(make("h3", file.name || "image"));
  try {
    const {found, took} = await ask(file);
    column.append(...parts(found), make("p", took, "took"));
    news.textContent = `${file.name}: ${words(found)}`;
    isAnswered = true;
  } catch (error) {
    column.append(notice(error));
    news.textContent = `${file.name}: ${column.lastChild.textContent}`;
  }
  answers.prepend(item);
  while (answers.children.length > MOST_KEPT) answers.lastChild.remove();
  if (isAnswered && looks?.checked) await look(file, pictures);
}

async function showAll(files) {
  for (const file of [...files]) await show(file);
}

input.addEventListener("change", async () => {
  await showAll(input.files);
  input.value = ""; // the same file may be chosen again
});
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, event => {
  event.preventDefault();
  drop.classList.add("over");
});
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, event => {
  event.preventDefault();
  drop.classList.remove("over");
});
document.addEventListener("drop", event => showAll(event.dataTransfer.files));
document.addEventListener("paste", event => showAll(event.clipboardData.files));
