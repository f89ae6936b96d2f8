/** Times are milliseconds of a clock that never goes back; none of them is read here. */

/** The earliest of these times; undefined when there is none. */
export function earliest(...times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter((time) => time !== undefined);
  return known.length > 0 ? Math.min(...known) : undefined;
}
