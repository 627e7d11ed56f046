/**
 * Over how many units to cut an expert, for a load: cutting evens out which units have work, whole experts spare the
 * slices' overhead. Compares the expected time of the fullest NDP group for each degree. Called where a placement is
 * made (the simulator's set-up); pure arithmetic, no costs of its own.
 */

export type TpLoad = {
  units: number;
  numExperts: number;
  topK: number;
  /** Tokens of a typical step. */
  tokens: number;
};

/** Time of one expert with `tokens` tokens on one of `groupUnits` units that share it, microseconds. */
export type SliceTime = (tokens: number, groupUnits: number) => number;

/** Expected largest of n standard normal values, n = 1, 2, ...; grows slowly, so that further ones share the last. */
const LARGEST_NORMAL = [0, 0.564, 0.846, 1.029, 1.163, 1.267, 1.352, 1.424];

/** Less than this is no reason to cut experts less. */
const CLEARLY = 0.001;

/** The degree whose fullest group is expected to be done first; of equal ones the largest. */
export function chooseTpDegree(load: TpLoad, sliceTime: SliceTime): number {
  let best = load.units;
  let leastUs = expectedNdpUs(load, load.units, sliceTime);
  for (let degree = load.units - 1; degree >= 1; degree--) {
    const timeUs = expectedNdpUs(load, degree, sliceTime);
    if (timeUs < (1 - CLEARLY) * leastUs) {
      leastUs = timeUs;
      best = degree;
    }
  }
  return best;
}

/** Expected time of the fullest NDP group in one layer, where tokens choose experts evenly. */
export function expectedNdpUs(load: TpLoad, degree: number, sliceTime: SliceTime): number {
  const { units, numExperts, topK, tokens } = load;
  const groups = Math.ceil(units / degree);
  const chosen = 1 - (1 - topK / numExperts) ** tokens;
  const active = numExperts * chosen;
  const tokensPerExpert = Math.max(1, (tokens * topK) / active);
  // Experts of one group that are active: drawn without replacement from all experts.
  const own = numExperts / groups;
  const spread = numExperts > 1 ? (numExperts - own) / (numExperts - 1) : 0;
  const deviation = Math.sqrt(own * chosen * (1 - chosen) * spread);
  const largest = LARGEST_NORMAL[Math.min(groups, LARGEST_NORMAL.length) - 1] ?? 0;
  const uneven = (Math.ceil(own) - own) * chosen;
  const fullest = active / groups + uneven + deviation * largest;
  // The last group may have fewer units than the degree; it then decides.
  const smallest = units - (groups - 1) * degree;
  return fullest * sliceTime(tokensPerExpert, smallest);
}
