// What has the focus, and whether that can be seen.
() => {
  const node = document.activeElement;
  const box = node.closest('.drop') || node;
  const outlined = [node, box].some((own) => parseFloat(getComputedStyle(own).outlineWidth) > 1);
  return { name: node.id || node.tagName === 'BODY' ? node.id : node.tagName, outlined };
}
