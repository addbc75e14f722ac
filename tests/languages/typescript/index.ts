// A store in a TypeScript program, by the generated SDK; its outputs are printed as JSON, secrets with them.
// The Automation API runs it without Pulumi's Node.js language host: the program itself is the host.
import { LocalWorkspace } from "@pulumi/pulumi/automation";
import { S3Compatible } from "./sdk";

const program = async () => {
  const media = new S3Compatible("media", {
    serverName: "example.com",
    bucket: process.env.BUCKET!,
    endpoint: process.env.ENDPOINT!,
    iamEndpoint: process.env.IAM_ENDPOINT!,
    method: "matrix-media-repo",
    mediaRepo: { s3_datastore_id: "typescript" },
    keys: { active: "b" },
    settleSeconds: 0,
  });
  const { accessKeyId, bucket, proof, secretAccessKey } = media;
  return { accessKeyId, bucket, proof, secretAccessKey };
};

const main = async () => {
  const stack = await LocalWorkspace.createStack({ stackName: "typescript", projectName: "infra", program });
  const result = await stack.up();
  process.stdout.write(JSON.stringify(result.outputs));
};

main().catch((error) => {
  process.stderr.write(`${error}\n`);
  process.exit(1);
});
