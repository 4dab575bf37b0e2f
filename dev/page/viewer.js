export { PerspectiveCamera, Scene, Vector3, WebGLRenderer } from "three";
export { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
