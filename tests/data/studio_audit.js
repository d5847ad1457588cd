// Controls without a name for screen readers; the lowest contrast of text on the page.
() => {
  const parse = (text) => text.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((x) => {
      const v = x / 255;
      return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.9) return colour;
    }
    return [255, 255, 255];
  };
  const visible = (node) => node.checkVisibility() && node.getClientRects().length > 0;
  const named = (node) => node.getAttribute('aria-label') || node.textContent.trim() || node.title
    || [...(node.labels || [])].some((label) => label.textContent.trim() || label.getAttribute('aria-label'));
  const controls = [...document.querySelectorAll('button, input, select, a, canvas, progress')].filter(visible);
  let contrast = 21;
  for (const node of document.querySelectorAll('p, h1, h2, h3, span, label, button, li, output, summary, legend, a')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !visible(node) || node.disabled || node.closest(':disabled')) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    contrast = Math.min(contrast, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return { unnamed: controls.filter((node) => !named(node)).map((node) => node.outerHTML), contrast };
}
