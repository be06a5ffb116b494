// Texts of a page whose contrast with what is behind them is below 4.5 to 1 (WCAG 2.2, 1.4.3).
(() => {
  const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const texts = "h1, h2, h3, small, dt, b, a, .chip, li, td, th, button, summary, text, .banner";
  const found = [];
  for (const node of document.querySelectorAll(texts)) {
    if (!node.textContent.trim() || node.closest(".unseen, .skip, [hidden]")) continue;
    const style = getComputedStyle(node);
    const [one, other] = [light(parse(node instanceof SVGElement ? style.fill : style.color)), light(ground(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.push(`${node.tagName} ${node.textContent.slice(0, 20)}: ${ratio.toFixed(2)}`);
  }
  return found;
})()
