/**
 * Finds keys that stand twice in one object of a JSON text, which JSON.parse silently lets pass (the last one wins).
 * Called by the safetensors reader, whose format forbids them. Expects text that JSON.parse accepts.
 */

/** End of the string that starts at text[start] === '"': the index after its closing quote. */
function stringEnd(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length) {
    const code = text.charCodeAt(i);
    if (code === 0x22) return i + 1;
    i += code === 0x5c ? 2 : 1;
  }
  return text.length;
}

function isKey(text: string, end: number): boolean {
  let i = end;
  while (i < text.length && ' \t\n\r'.includes(text.charAt(i))) i++;
  return text.charAt(i) === ':';
}

/** The first key that occurs twice in the same object, or undefined. */
export function findDuplicateKey(text: string): string | undefined {
  const open: Set<string>[] = [];
  let i = 0;
  while (i < text.length) {
    const char = text.charAt(i);
    if (char === '{' || char === '[') open.push(new Set());
    else if (char === '}' || char === ']') open.pop();
    else if (char === '"') {
      const end = stringEnd(text, i);
      if (isKey(text, end)) {
        const key = JSON.parse(text.slice(i, end)) as string;
        const keys = open[open.length - 1];
        if (keys?.has(key)) return key;
        keys?.add(key);
      }
      i = end;
      continue;
    }
    i++;
  }
  return undefined;
}
