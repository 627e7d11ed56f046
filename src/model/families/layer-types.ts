/** The key `layer_types`, by which a config says what each layer's attention is. Called by families that mix kinds. */
import type { ConfigReader } from '../config.js';

/** One type for each layer; `fallback` where the config has no list. Throws ModelFormatError. */
export function readLayerTypes<Type extends string>(
  config: ConfigReader,
  numLayers: number,
  known: readonly Type[],
  fallback: (layer: number) => Type,
): Type[] {
  const listed = config.texts(
    'layer_types',
    Array.from({ length: numLayers }, (_, layer) => fallback(layer)),
  );
  if (listed.length !== numLayers) {
    throw config.contradiction('num_hidden_layers', numLayers, 'layer_types', `${listed.length} types`);
  }
  return listed.map((type) => {
    const found = known.find((candidate) => candidate === type);
    if (found === undefined) throw config.unsupported('layer_types', known.join(' or '), type);
    return found;
  });
}
