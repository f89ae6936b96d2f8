// Writes the dashboards' JSON into a folder: build.js FOLDER.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DASHBOARDS } from './dashboards.js';

const [folder] = process.argv.slice(2);
if (folder === undefined) {
  throw new Error('usage: build.js FOLDER');
}
for (const [name, dashboard] of Object.entries(DASHBOARDS)) {
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(dashboard.build(), null, 2)}\n`);
}
