// Runs beside a report in the frame `frame` (see test_report_in_browser.py) and writes what it finds into #found.
const page = frame.contentDocument, root = page.documentElement, width = frame.clientWidth;
const all = selector => [...page.querySelectorAll(selector)];
const box = element => element.getBoundingClientRect();
const show = element => element.outerHTML.slice(0, 90);

function parse(colour) { // "rgb(1, 2, 3)", "rgba(1, 2, 3, 0.5)" or "color(srgb 0.1 0.2 0.3 / 0.5)"
  const numbers = colour.match(/[\d.]+(?:e-?\d+)?/g).map(Number), scale = colour.startsWith("color") ? 255 : 1;
  return {rgb: numbers.slice(0, 3).map(v => v * scale), alpha: numbers[3] ?? 1};
}

function luminance(rgb) { // WCAG 2
  const linear = rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

const paper = parse(getComputedStyle(page.body).backgroundColor).rgb;

function contrast(element) {
  const style = getComputedStyle(element), ground = parse(style.backgroundColor);
  const under = ground.rgb.map((v, i) => v * ground.alpha + paper[i] * (1 - ground.alpha));
  const [low, high] = [luminance(under), luminance(parse(style.color).rgb)].sort((a, b) => a - b);
  return {ratio: (high + 0.05) / (low + 0.05), element: show(element)};
}

function contrastOfShades(cell) { // of a cell of the confusion matrix, for every share
  return [...Array(51).keys()].map(step => {
    cell.style.setProperty("--s", step / 50);
    return contrast(cell);
  });
}

const texts = all(".confusion td[style], .quiet, .notice, .notice strong, .aside p, .aside em, .tag, nav a, h2, .name");
const ratios = texts.map(contrast);
for (const kind of ["right", "wrong"]) ratios.push(...all(`.confusion .${kind}`).slice(0, 1).flatMap(contrastOfShades));

document.getElementById("found").textContent = JSON.stringify({
  title: document.title,
  paper,
  overflow: root.scrollWidth - width,
  outside: all("h1, h2, h3, p, li, figure, img, pre, dl")
    .filter(e => box(e).width && (box(e).right > width + 1 || box(e).left < -1)).map(show),
  sections: all("section").map(section => box(section).height),
  pictures: [...page.images].map(image => image.complete && image.naturalWidth > 0),
  curves: all("figure .curve").map(path => path.getTotalLength()),
  leastContrast: ratios.sort((a, b) => a.ratio - b.ratio)[0],
});
