/** The SDK's one file for browsers is served beside the page; it says what the package says. */
export * from "../../../client/js/dist/index.js";
