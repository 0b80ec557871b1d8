// The reward of a path of clips and its best lengths, from raw terms; places are indices into data.lengths.
// The search is that of vaportok_rl.agents.oracle, so that both find the same lengths.
"use strict";

/** Unweighted diversity of a path: the capped standard deviation of n / K. */
function diversity(data, places) {
  const shares = places.map((place) => data.lengths[place] / data.tokens);
  const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
  const variance = shares.reduce((sum, share) => sum + (share - mean) ** 2, 0) / shares.length;
  return data.diversity.scale * Math.min(Math.sqrt(variance), data.diversity.cap);
}

/** Weighted terms of one clip at one place, by name; diversity, which is the whole path's, among them. */
function weighted(data, weights, places, clip) {
  const parts = Object.fromEntries(
    Object.entries(data.terms).map(([name, values]) => [name, weights[name] * values[clip][places[clip]]]),
  );
  parts.diversity = weights.diversity * diversity(data, places);
  return parts;
}

const sum = (values) => Object.values(values).reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;

/** The reward of a clip in its path; the mean over the clips is the path's. */
const clipReward = (data, weights, places, clip) => sum(weighted(data, weights, places, clip));
const pathReward = (data, weights, places) => mean(places.map((_, clip) => clipReward(data, weights, places, clip)));

/** The first index of the highest value. */
const argmax = (values) => values.reduce((best, value, at) => (value > values[best] ? at : best), 0);

/** The one length that pays most for all clips. */
function bestFixed(data, weights) {
  return argmax(data.lengths.map((_, place) => pathReward(data, weights, data.clips.map(() => place))));
}

/** Where the search begins: the best of each clip, of all clips, and few clips long with the rest short. */
function starts(values, fixed) {
  const clips = values.length, count = values[0].length, half = Math.ceil(count / 2);
  const found = [values.map(argmax), values.map(() => fixed)];
  const long = count > 1 ? half : 0;
  const pairs = [
    [values.map(() => 0), values.map(() => count - 1)],
    [values.map((row) => argmax(row.slice(0, half))), values.map((row) => long + argmax(row.slice(long)))],
  ];
  for (let many = 1; many < clips; many++) {
    for (const [short, tall] of pairs) {
      const gains = values.map((row, clip) => [row[tall[clip]] - row[short[clip]], clip]);
      const longest = gains.sort((one, other) => other[0] - one[0]).slice(0, many).map(([, clip]) => clip);
      found.push(values.map((_, clip) => (longest.includes(clip) ? tall[clip] : short[clip])));
    }
  }
  return found;
}

/** The places of the highest path reward: where no single length can be improved. */
function oracle(data, weights) {
  const equal = (clip) => (_, place) => clipReward(data, weights, data.clips.map(() => place), clip);
  const values = data.clips.map((_, clip) => data.lengths.map(equal(clip)));
  let best = null, most = -Infinity;
  for (const start of starts(values, bestFixed(data, weights))) {
    const places = [...start];
    let earned = pathReward(data, weights, places);
    for (let sweep = 0; sweep < 10; sweep++) {
      const before = earned;
      for (let clip = 0; clip < places.length; clip++) {
        const tried = data.lengths.map((_, place) => pathReward(data, weights, places.with(clip, place)));
        const at = argmax(tried);
        if (tried[at] > earned) [places[clip], earned] = [at, tried[at]];
      }
      if (earned === before) break;
    }
    if (earned > most) [best, most] = [places, earned];
  }
  return best;
}
