{
  # The native sources are listed in CMakeLists.txt alone. This target hands over to that build, so that
  # node-gyp, prebuildify and node-gyp-build work as with any addon; the result lands in build/Release.
  "targets": [
    {
      "target_name": "nearmoe",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake_build",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/nearmoe.node"],
          "action": ["node", "scripts/build-addon.mjs", "--copy-to", "<(PRODUCT_DIR)"]
        }
      ]
    }
  ]
}
