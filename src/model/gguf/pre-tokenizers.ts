/**
 * Pre-tokenizers that GGUF files name in `tokenizer.ggml.pre`, as the regular expressions of the tokenizers they were
 * converted from: each splits what the ones before left over. Used by bpe.ts. The names are llama.cpp's.
 */

export type PreTokenizer = {
  /** In Oniguruma's syntax, applied in order, each match a piece of its own. */
  patterns: readonly string[];
  /** Takes a piece that is a token as it is, before any merge. */
  ignoreMerges?: boolean;
  /** Puts the begin-of-text token in front where the file does not say. */
  addBos?: boolean;
  /** Unicode normal form of the original tokenizer; converters do not record it. */
  normalForm?: 'NFC';
};

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const SPACES = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const PUNCTUATION = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*';
const LETTERS = '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+';

const llama3Pattern = `${CONTRACTIONS}|${LETTERS}|\\p{N}{1,3}|${PUNCTUATION}|${SPACES}`;
const qwen2Pattern = `${CONTRACTIONS}|${LETTERS}|\\p{N}|${PUNCTUATION}|${SPACES}`;

const UPPER = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const LOWER = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
const FIRST = '[^\\r\\n\\p{L}\\p{N}]?';
const SLASHES = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*';
const tekkenPattern = `${FIRST}${UPPER}*${LOWER}+|${FIRST}${UPPER}+${LOWER}*|\\p{N}|${SLASHES}|${SPACES}`;
const gpt4oPattern =
  `${FIRST}${UPPER}*${LOWER}+${CONTRACTIONS}?|${FIRST}${UPPER}+${LOWER}*${CONTRACTIONS}?|` +
  `\\p{N}{1,3}|${SLASHES}|${SPACES}`;

const words: PreTokenizer = { patterns: [WORDS] };
const digitsAndWords: PreTokenizer = { patterns: ['\\p{N}', WORDS] };
const llama3: PreTokenizer = { patterns: [llama3Pattern], ignoreMerges: true, addBos: true };
const qwen2: PreTokenizer = { patterns: [qwen2Pattern], normalForm: 'NFC' };
const bloom: PreTokenizer = { patterns: [' ?[^(\\s|.,!?…。，、।۔،)]+'] };
const gpt4o: PreTokenizer = { patterns: [gpt4oPattern] };

const deepseekV3: PreTokenizer = {
  patterns: [
    '\\p{N}{1,3}',
    '[一-龥぀-ゟ゠-ヿ]+',
    '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|' +
      ` ?[\\p{P}\\p{S}]+[\\r\\n]*|${SPACES}`,
  ],
};

const deepseekCoder: PreTokenizer = {
  patterns: ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', '[一-龥ࠀ-一가-퟿]+', '\\p{N}'],
};

const WITHOUT_HAN = '&&[^\\p{Han}]]';
const [UPPER_BUT_HAN, LOWER_BUT_HAN] = [UPPER, LOWER].map((set) => set.slice(0, -1) + WITHOUT_HAN);
const kimiK2: PreTokenizer = {
  patterns: [
    `[\\p{Han}]+|${FIRST}${UPPER_BUT_HAN}*${LOWER_BUT_HAN}+${CONTRACTIONS}?|` +
      `${FIRST}${UPPER_BUT_HAN}+${LOWER_BUT_HAN}*${CONTRACTIONS}?|\\p{N}{1,3}|${PUNCTUATION}|${SPACES}`,
  ],
};

/** What llama.cpp falls back to for files without a name. */
const unnamed: PreTokenizer = {
  patterns: ['[\\p{P}\\$\\+<=>\\^~\\|]+', WORDS, '\\p{N}+', '[0-9][0-9][0-9]'],
};

const falcon: PreTokenizer = { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|`]+', WORDS, '[0-9][0-9][0-9]'] };

const bailing: PreTokenizer = {
  patterns: [`'(?i:[sdmt]|ll|ve|re)|${LETTERS}|\\p{N}|${PUNCTUATION}|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`],
};

const qwen35: PreTokenizer = {
  patterns: [`${CONTRACTIONS}|${FIRST}[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`],
  normalForm: 'NFC',
};

export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map(
  Object.entries({
    default: unnamed,
    'gpt-2': words,
    'phi-2': words,
    mpt: words,
    jais: words,
    trillion: words,
    exaone4: words,
    gigachat: words,
    mellum: words,
    'granite-docling': words,
    olmo: { ...words, normalForm: 'NFC' },
    refact: digitsAndWords,
    starcoder: digitsAndWords,
    'command-r': digitsAndWords,
    smollm: digitsAndWords,
    codeshell: digitsAndWords,
    exaone: digitsAndWords,
    'minerva-7b': digitsAndWords,
    'llama-bpe': llama3,
    'llama-v3': llama3,
    llama3,
    falcon3: llama3,
    'falcon-h1': llama3,
    pixtral: llama3,
    lfm2: llama3,
    dbrx: { patterns: [llama3Pattern] },
    'smaug-bpe': { patterns: [llama3Pattern] },
    glm4: { patterns: [llama3Pattern] },
    'chatglm-bpe': { patterns: [llama3Pattern] },
    qwen2,
    'deepseek-r1-qwen': qwen2,
    megrez: qwen2,
    hunyuan: { patterns: [qwen2Pattern] },
    'solar-open': { patterns: [qwen2Pattern] },
    stablelm2: { patterns: [qwen2Pattern] },
    'grok-2': { patterns: [qwen2Pattern] },
    qwen35,
    tekken: { patterns: [tekkenPattern], ignoreMerges: true, addBos: true },
    'gpt-4o': gpt4o,
    llama4: gpt4o,
    'minimax-m2': gpt4o,
    'kimi-k2': kimiK2,
    'deepseek-v3': deepseekV3,
    'hunyuan-dense': deepseekV3,
    'deepseek-coder': deepseekCoder,
    falcon,
    bailingmoe: bailing,
    bailingmoe2: bailing,
    bloom,
    'gpt3-finnish': bloom,
    'poro-chat': bloom,
    viking: { patterns: [...bloom.patterns, '\\p{N}'] },
  }),
);
