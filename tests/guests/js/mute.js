// Job source that cannot say what it is.

export const lifecycle = {
  describe() {
    throw new TypeError("the cause in the crash report");
  },
  open() {},
  check() {
    return "fine";
  },
};

export const jobs = {
  poll() {
    return { observations: [], cursor: null, coverage: "complete" };
  },
};
