// Prints the problems of custom resources as JSON. usage: node custom_resources.mjs FOLDER < objects.json
import {existsSync, readFileSync} from 'node:fs';
import {pathToFileURL} from 'node:url';

// The package has no schema of external-secrets.io/v1, which is the same as that of v1beta1.
const MODELS = {
  'external-secrets.io/v1/ExternalSecret': ['external-secrets', 'external-secrets.io/v1beta1'],
  'external-secrets.io/v1beta1/ExternalSecret': ['external-secrets', 'external-secrets.io/v1beta1'],
  'gateway.networking.k8s.io/v1/HTTPRoute': ['gateway-api', 'gateway.networking.k8s.io/v1'],
  'keda.sh/v1alpha1/ScaledObject': ['keda', 'keda.sh/v1alpha1'],
  'monitoring.coreos.com/v1/ServiceMonitor': ['prometheus-operator', 'monitoring.coreos.com/v1'],
  'monitoring.coreos.com/v1/PrometheusRule': ['prometheus-operator', 'monitoring.coreos.com/v1'],
};
const problems = [];
for (const thing of JSON.parse(readFileSync(0))) {
  const name = `${thing.apiVersion}/${thing.kind}`;
  const [folder, group] = MODELS[name] ?? [];
  if (folder === undefined) { problems.push(`${name}: no schema`); continue; }
  const base = `${process.argv[2]}/node_modules/@kubernetes-models/${folder}/${group}/${thing.kind}`;
  const model = (await import(pathToFileURL(existsSync(`${base}.mjs`) ? `${base}.mjs` : `${base}.js`)))[thing.kind];
  const checked = folder === 'external-secrets' ? {...thing, apiVersion: group} : thing;
  try { new model(checked).validate(); } catch (error) { problems.push(`${name} ${thing.metadata.name}: ${error.message.slice(0, 300)}`); }
}
process.stdout.write(JSON.stringify(problems));
