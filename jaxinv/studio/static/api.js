// Requests to the studio. Every failure is an Error whose message is one sentence.

// Of this page: its requests replace each other, those of another tab do not.
export const tab = Array.from({ length: 4 }, () => Math.random().toString(36).slice(2, 8)).join('');

async function ask(method, address, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(address, { method, body, headers: { 'X-Studio': '1', ...headers } });
  } catch {
    throw new Error('The studio does not answer; is it still running?');
  }
  if (answer.ok) return answer;
  let sentence = `The studio answered ${answer.status}.`;
  try {
    sentence = (await answer.json()).error || sentence;
  } catch {
    // not JSON: the sentence stays
  }
  throw new Error(sentence);
}

const json = { 'Content-Type': 'application/json' };

export const get = async (address) => (await ask('GET', address)).json();
export const remove = (address) => ask('DELETE', address);

export async function post(address, content = {}) {
  return (await ask('POST', address, JSON.stringify(content), json)).json();
}

export async function postBytes(address, bytes) {
  return (await ask('POST', address, bytes)).json();
}

export async function upload(file) {
  return (await ask('POST', '/api/photographs', file, { 'X-Name': encodeURIComponent(file.name) })).json();
}

// An address of the picture that a request makes; null if a newer request replaced it.
export async function picture(address, content) {
  const answer = await ask('POST', address, JSON.stringify({ tab, ...content }), json);
  if (answer.status === 204) return null;
  return URL.createObjectURL(await answer.blob());
}

// null where there is no picture yet
export async function getPicture(address) {
  const answer = await ask('GET', address);
  return answer.status === 204 ? null : URL.createObjectURL(await answer.blob());
}

// Saves the answer under the name that its header has.
export async function save(address, content) {
  const answer = await ask('POST', address, JSON.stringify({ tab, ...content }), json);
  const header = answer.headers.get('Content-Disposition') || '';
  const match = /filename\*=UTF-8''([^;]+)/.exec(header);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await answer.blob());
  link.download = match ? decodeURIComponent(match[1]) : 'file';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// Shows a picture in an <img> and frees the one that was there.
export function show(image, address) {
  const old = image.getAttribute('src');
  if (address) image.src = address;
  else image.removeAttribute('src');
  if (old && old.startsWith('blob:')) URL.revokeObjectURL(old);
}
