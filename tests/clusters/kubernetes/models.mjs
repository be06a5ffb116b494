// Objects as a JSON array on stdin; for each of them null, or what is wrong with it, as a JSON array on stdout.
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";
import * as prometheus from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { readdirSync, readFileSync } from "node:fs";

const groups = {
  "keda.sh/v1alpha1": { models: keda, folder: "keda/keda.sh/v1alpha1" },
  "monitoring.coreos.com/v1": { models: prometheus, folder: "prometheus-operator/monitoring.coreos.com/v1" },
};
const ofNames = new Set(["metadata", "labels", "annotations", "matchLabels"]); // below these anybody names keys

// The models pass fields that they do not know, as the API server drops them: their types name all that they know.
const fields = (folder) => {
  const path = `node_modules/@kubernetes-models/${folder}`;
  const files = readdirSync(path).filter((file) => file.endsWith(".d.ts"));
  const text = files.map((file) => readFileSync(`${path}/${file}`, "utf8")).join("\n");
  const others = "name key matchLabels scaleDown stabilizationWindowSeconds behavior"; // of Kubernetes' own types
  return new Set([...[...text.matchAll(/^\s+"?(\w+)"?\??:/gm)].map((found) => found[1]), ...others.split(" ")]);
};
const unknown = (value, known, path = "") => {
  if (Array.isArray(value)) return value.flatMap((each, at) => unknown(each, known, `${path}/${at}`));
  if (value === null || typeof value !== "object") return [];
  return Object.entries(value).flatMap(([key, below]) => [
    ...(known.has(key) ? [] : [`${path}/${key}`]),
    ...(ofNames.has(key) ? [] : unknown(below, known, `${path}/${key}`)),
  ]);
};

const said = JSON.parse(readFileSync(0, "utf8")).map((object) => {
  const { models, folder } = groups[object.apiVersion] ?? {};
  if (!models?.[object.kind]) return `no model knows this kind: ${object.apiVersion} ${object.kind}`;
  const strange = unknown(object, fields(folder));
  if (strange.length) return `unknown: ${strange.join(", ")}`;
  try {
    new models[object.kind](object).validate();
    return null;
  } catch (error) {
    return error.message;
  }
});
console.log(JSON.stringify(said));
