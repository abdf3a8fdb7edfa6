// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Reads every tensor file of a directory with Hugging Face's parsers and prints
// what they see as JSON.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { gguf, GGMLQuantizationType } from "@huggingface/gguf";
import { parseSafetensorsMetadata } from "@huggingface/hub";

const directory = process.argv[2];

// hub serves the files of the directory as ranges, as the Hub does.
async function hub(url, init) {
	const bytes = readFileSync(join(directory, basename(new URL(url).pathname)));
	const [, from, to] = /bytes=(\d+)-(\d+)/.exec(new Headers(init.headers).get("Range"));
	const end = Math.min(Number(to), bytes.length - 1);
	return new Response(bytes.subarray(Number(from), end + 1), {
		status: 206,
		headers: { "Content-Range": `bytes ${from}-${end}/${bytes.length}`, ETag: '"x"' },
	});
}

async function safetensors(name) {
	const { header } = await parseSafetensorsMetadata({ repo: "test/test", path: name, hubUrl: "http://hub.invalid", fetch: hub });
	const bytes = readFileSync(join(directory, name));
	const start = 8 + Number(bytes.readBigUInt64LE(0));
	return Object.entries(header)
		.filter(([name]) => name !== "__metadata__")
		.map(([name, t]) => ({
			name,
			dtype: String(t.dtype),
			shape: t.shape.map(String),
			sha256: createHash("sha256").update(bytes.subarray(start + t.data_offsets[0], start + t.data_offsets[1])).digest("hex"),
		}));
}

async function quantised(name) {
	const { tensorInfos, tensorDataOffset } = await gguf(join(directory, name), { allowLocalFile: true });
	return tensorInfos.map((t) => ({
		name: t.name,
		dtype: GGMLQuantizationType[t.dtype] ?? String(t.dtype),
		shape: t.shape.map(String).reverse(),
		at: Number(tensorDataOffset + t.offset),
	}));
}

const out = {};
for (const name of readdirSync(directory)) {
	try {
		out[name] = { tensors: await (name.endsWith(".safetensors") ? safetensors : quantised)(name) };
	} catch (e) {
		out[name] = { refused: String(e).slice(0, 200) };
	}
}
process.stdout.write(JSON.stringify(out));
