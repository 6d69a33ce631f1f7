// Runs a folder of `mmslip export` in transformers.js and prints what it finds as JSON.
//
//     node transformers_js.mjs NODE_MODULES FOLDER INPUTS.json
//
// INPUTS holds {images: [paths], texts: [...], labels: [...]}.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, resolve } from 'node:path';

const [modules, folder, inputs] = process.argv.slice(2);
const library = createRequire(resolve(modules, 'package.json'))('@huggingface/transformers');
const { env, pipeline, AutoProcessor, AutoTokenizer, RawImage } = library;
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(folder));
const name = basename(folder);
const { images, texts, labels } = JSON.parse(readFileSync(inputs));

const tokenizer = await AutoTokenizer.from_pretrained(name);
const ids = tokenizer(texts, { padding: true, truncation: true });
const textTower = await library.CLIPTextModelWithProjection.from_pretrained(name);
const found = { version: env.version, texts: (await textTower(ids)).text_embeds.tolist() };

const processor = await AutoProcessor.from_pretrained(name);
const imageTower = await library.CLIPVisionModelWithProjection.from_pretrained(name);
for (const [kind, resample] of [['lanczos', 1], ['bilinear', 2]]) {
    processor.image_processor.resample = resample;
    found[kind] = [];
    for (const path of images) {
        const output = await imageTower(await processor(await RawImage.read(path)));
        found[kind].push(output.image_embeds.tolist()[0]);
    }
}

const classify = await pipeline('zero-shot-image-classification', name);
classify.processor.image_processor.resample = 1;
found.scores = await classify(images[0], labels, { hypothesis_template: '{}' });
console.log(JSON.stringify(found));
